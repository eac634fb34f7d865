"""A page to view, compare and pick an output's clips."""
