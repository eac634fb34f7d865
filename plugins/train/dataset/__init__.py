"""Makes batches from a table: checks rows, cuts videos to size, keeps what is computed once in the output."""
