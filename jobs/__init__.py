"""What people touch: the job file, the command line, planning, replay and the demo.

Imports `framefleet.cluster` and `framefleet.pipeline`; nothing imports this folder back.
"""
