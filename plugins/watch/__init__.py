"""Jobs watched and directed from anywhere, by their output."""
