"""Converts checkpoints of other projects to pipeline folders, tensor by tensor."""
