"""What a person sees of a command: its streams and its progress."""
