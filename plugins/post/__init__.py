"""A second file for each clip: upscaled by a network, with more frames per second, or both."""
