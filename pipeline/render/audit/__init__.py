"""Rows rendered again, alone, by plain calls: exactness is watched, not only tested once."""
