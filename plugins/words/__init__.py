"""Language models judge and caption clips, and write prompts."""
