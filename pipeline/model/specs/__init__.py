"""What a pipeline takes: its signature, sizes, frames, dtypes and schedulers."""
