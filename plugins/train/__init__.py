"""`framefleet train`: trains weights on a table of videos."""
