"""Remove what is damaged from an output, so that it is rendered again."""
