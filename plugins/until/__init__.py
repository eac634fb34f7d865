"""Render new seeds until enough clips of each group pass a condition."""
