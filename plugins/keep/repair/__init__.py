"""What is damaged in an output: taken out of it, so that it is rendered again."""
