"""From `sweep:` to rows: every combination of the arguments' values, with or without a table."""
