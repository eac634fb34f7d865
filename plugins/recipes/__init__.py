"""Recipes of more than one call: on an image or a video, small first and then larger, long clips."""
