"""`framefleet model`: list, inspect, lock and verify models; and the page of models."""
