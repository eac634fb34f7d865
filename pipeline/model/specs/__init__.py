"""What a pipeline accepts: parameters, sizes, frames, dtypes and schedulers."""
