"""How far an output is, as its files tell."""
