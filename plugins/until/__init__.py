"""Until: new seeds are rendered until enough clips of each group pass a condition."""
