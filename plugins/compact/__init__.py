"""Merge many small files of records into a few large ones."""
