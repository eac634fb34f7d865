"""Jobs that a Ray cluster runs by itself: `framefleet submit` and `framefleet logs`."""
