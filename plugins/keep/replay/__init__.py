"""A recorded row: read, rendered once more, compared; or a script that does it."""
