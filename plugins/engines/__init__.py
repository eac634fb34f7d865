"""Get clips from servers that speak `/v1/videos` or `/v1/images`."""
