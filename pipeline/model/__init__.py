"""A model: where it comes from, which arguments it takes, how it is loaded, and its options."""
