"""A model: where it comes from, what it takes, how it is loaded and set."""
