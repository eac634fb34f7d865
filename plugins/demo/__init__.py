"""`framefleet demo`: render a shipped table, or your own prompts, with the shipped model."""
