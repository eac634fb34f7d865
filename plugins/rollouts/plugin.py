"""`framefleet.fleet`, for Python alone: it adds no command."""

from framefleet.api import Plugin

PLUGIN = Plugin()
