"""Many small files of records put together to a few large ones."""
