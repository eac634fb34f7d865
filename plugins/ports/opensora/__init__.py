"""Open-Sora v2 as a pipeline like those of diffusers."""
