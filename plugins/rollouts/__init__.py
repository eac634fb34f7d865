"""A fleet that stays between calls, and updates of the weights in its workers."""
