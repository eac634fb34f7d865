"""Mark clips as made by a model, and with their row: signed manifests, watermarks, labels."""
