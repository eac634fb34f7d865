"""A page to look at an output's clips, to compare and to choose."""
