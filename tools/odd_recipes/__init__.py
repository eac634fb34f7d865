"""Odd but legitimate recipes, rendered among ordinary rows and compared with plain calls."""
