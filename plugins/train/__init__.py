"""A table of videos in, trained weights out: `framefleet train`."""
