"""What a training leaves in its output: losses, samples, checkpoints, and at the end the weights."""
