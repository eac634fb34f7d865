"""Estimate whether a row fits: the memory it needs, and the memory where it is rendered."""
