"""Web addresses and commands that hear how a run has ended."""
