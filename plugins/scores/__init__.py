"""Scores of clips: of a job while it renders, and of clips that are there."""
