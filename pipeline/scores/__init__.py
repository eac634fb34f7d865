"""Numbers about finished clips: how sharp, how lively, how broken, how near to their prompt."""
