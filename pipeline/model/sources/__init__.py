"""Where a model comes from: folder, hub or URL; its files listed, fetched, hashed and locked."""
