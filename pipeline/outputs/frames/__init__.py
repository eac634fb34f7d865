"""What a recipe returned: frames, sound and other outputs, and their digests."""
