"""Check an output: compare its files with their digests, or render a sample of its rows again."""
