"""What is optional: each folder is one plugin, which adds to the core through `framefleet.doors`."""
