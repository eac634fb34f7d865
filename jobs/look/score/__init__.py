"""Scores of clips that are there."""
