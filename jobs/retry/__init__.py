"""Rows that failed: another chance."""
