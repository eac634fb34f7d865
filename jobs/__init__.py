"""What people touch: the job file, the command line, planning, watching, replay.

Imports `framefleet.cluster` and `framefleet.pipeline`; only plugins import this folder.
"""

if __name__ == "jobs":  # from the root of a clone: a second copy, whose classes are not the first one's
    raise ImportError("import it as framefleet.jobs")
