"""A render job: resolved, surveyed, planned, claimed, rendered."""
