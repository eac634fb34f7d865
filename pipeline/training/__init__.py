"""Training: rows of videos and prompts in, weights of a pipeline's parts out. One process, no Ray."""
