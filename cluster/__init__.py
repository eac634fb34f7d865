"""The fleet: a pure dispatcher that decides which worker renders what, and the Ray actors that do it.

The only folder that imports Ray. Imports `framefleet.pipeline`, never `framefleet.jobs`.
"""

if __name__ == "cluster":  # from the root of a clone: a second copy, whose classes are not the first one's
    raise ImportError("import it as framefleet.cluster")
