"""LoRAs: declared, fetched, held against the model, loaded, and switched on row by row."""
