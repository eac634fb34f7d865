"""Rows of an output that a coin chose, in a certificate that a stranger checks by rendering them again."""
