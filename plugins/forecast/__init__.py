"""`framefleet plan`: what a job would do, and take: also by calling its pipeline, and rendering some rows."""
