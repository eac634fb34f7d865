"""`framefleet.fleet`, for Python alone: it adds no command."""

from framefleet.doors import Plugin

PLUGIN = Plugin()
