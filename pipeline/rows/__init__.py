"""A table in, requests out: files, cells, checks, what a row names, its identity."""
