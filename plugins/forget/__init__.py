"""Rows that leave an output for good, with their clips and texts."""
