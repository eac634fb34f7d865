"""Read episodes of LeRobot datasets as rows, and export clips as episodes."""
