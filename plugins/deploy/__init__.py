"""Run jobs on a Ray cluster without this machine: `framefleet submit` and `framefleet logs`."""
