"""The job file: its schema, its text, mistakes in it, and the model and the output that it names, opened."""
