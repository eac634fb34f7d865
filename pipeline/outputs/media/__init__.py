"""Clips as files: encoded, signed, decoded, and drawn on contact sheets."""
