"""Recipes as people write them: legitimate diffusers code that does something odd.

The column `odd` says how odd a row is; at 0.0 the recipe renders as `generate` does, or nearly so.
"""
