"""From a table to batches: rows checked, videos cut to size, what is computed once kept in the output."""
