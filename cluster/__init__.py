"""The fleet: a pure dispatcher that decides which worker renders what, and the Ray actors that do it.

The only folder that imports Ray. Imports `framefleet.pipeline`, never `framefleet.jobs`.
"""

if __name__ == "cluster":  # imported from a clone's root: a second copy, with other classes than the first
    raise ImportError("import it as framefleet.cluster")
