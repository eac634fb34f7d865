"""The task `denoiser`: how a pipeline's own denoiser is called, and what it learns."""
