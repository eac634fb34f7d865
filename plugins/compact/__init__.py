"""Many small files of records, merged into a few large ones."""
