"""From `sweep:` to rows: what each argument goes through, every combination, with or without a table."""
