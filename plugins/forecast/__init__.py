"""What a job takes: its pipeline called without weights, some rows rendered, the rest predicted."""
