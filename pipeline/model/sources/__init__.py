"""Where a model comes from (folder, hub or URL): list, fetch, hash and lock its files."""
