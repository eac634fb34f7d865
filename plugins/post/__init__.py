"""A second file of each clip: upscaled by a network, with more frames per second, or both."""
