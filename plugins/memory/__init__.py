"""Whether a row fits: what it takes, and what the place has where it is rendered."""
