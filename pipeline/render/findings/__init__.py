"""What was found of batch sizes, kept beyond the process: hints, proven anew before use."""
