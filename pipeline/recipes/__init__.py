"""Recipes: diffusers code for one row, which pipelines they call, and guidance that changes by step."""
