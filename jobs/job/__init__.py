"""The job file: its schema, its text, and what to say of mistakes in it."""
