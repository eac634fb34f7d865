"""One worker, and what it and the driver send each other."""
