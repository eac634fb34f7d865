"""A table in, requests out: files, cells, checks, images and videos, and each row's identity."""
