"""What says of a clip that a model made it, and which row it is: signed manifests, watermarks, labels."""
