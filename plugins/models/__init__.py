"""`framefleet model`: list, lock, convert, and the page of models."""
