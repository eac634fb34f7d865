"""The command `framefleet compact`."""

from framefleet.api import Plugin

PLUGIN = Plugin(commands={"Use clips": ["framefleet.plugins.compact.command:compact_command"]})
