"""The fleet: a pure dispatcher that decides which worker renders what, and the Ray actors that do it.

The only folder that imports Ray. Imports `framefleet.pipeline`, never `framefleet.jobs`.
"""
