"""LeRobot datasets: their episodes as rows."""
