"""Whether an output is what it was: its files by their digests, and a sample of its rows rendered again."""
