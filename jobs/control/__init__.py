"""Jobs under way, directed from anywhere that reaches their output."""
