"""Commands that keep an output what it was: checked, mended, rendered again."""
