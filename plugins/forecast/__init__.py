"""`framefleet plan`: predict what a job would do; on request, call its pipeline or render some rows."""
