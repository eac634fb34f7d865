"""What leaves: frames, media files, records and their parts, and the stores they go to."""
