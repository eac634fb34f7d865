"""Watch and control jobs from anywhere, through their output."""
