"""An IP-adapter: declared, fetched, held against the model, and loaded into it."""
