"""Delete rows from an output for good, with their clips and texts."""
