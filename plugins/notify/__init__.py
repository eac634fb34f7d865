"""Notify web addresses and commands when a run starts or ends."""
