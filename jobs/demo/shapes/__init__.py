"""Shapes: a small made-up world of videos with exact captions, and a measure of who drew what was asked."""
