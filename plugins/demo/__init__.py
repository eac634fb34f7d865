"""`framefleet demo`: the shipped model renders a shipped table, or one's own words."""
