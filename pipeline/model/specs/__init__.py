"""What a pipeline takes: its signature, sizes, frames, dtypes, schedulers and presets."""
