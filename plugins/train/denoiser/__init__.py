"""The task `denoiser`: what a pipeline's own denoiser is called with, and what it learns."""
