"""A fleet in virtual time, around the real dispatcher and the real rules of faults."""
