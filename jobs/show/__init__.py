"""What a person sees of a command: the streams, progress, who is told of it."""
