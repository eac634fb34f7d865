"""A fleet that stays between calls, and weights that are replaced in its workers."""
