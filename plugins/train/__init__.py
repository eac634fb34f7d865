"""A training: resolved, surveyed, claimed, run."""
