"""Measure scores of clips, while a job renders or later."""
