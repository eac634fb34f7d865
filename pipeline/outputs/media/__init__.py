"""Clips as files: encoded and decoded."""
