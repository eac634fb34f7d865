"""What an output cost and how it went, as one page and as JSON."""
