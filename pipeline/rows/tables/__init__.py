"""From a table to requests: files, cells, checks, and which rows wait."""
