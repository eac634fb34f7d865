"""Commands that show an output: how far it is, and what failed."""
