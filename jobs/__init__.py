"""What people touch: the job file, the command line, planning, watching, replay.

Imports `framefleet.cluster` and `framefleet.pipeline`; only plugins import this folder.
"""

if __name__ == "jobs":  # imported from a clone's root: a second copy, with other classes than the first
    raise ImportError("import it as framefleet.jobs")
