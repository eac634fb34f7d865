"""Find what is wrong with a machine or a cluster, and how to fix it."""
