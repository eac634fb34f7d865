"""Report the cost and progress of an output, as one page and as JSON."""
