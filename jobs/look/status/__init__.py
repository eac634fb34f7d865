"""Progress of an output, by its files."""
