"""Some clips of an output in a folder, with all that renders them again but the weights."""
