"""The command `framefleet compact`."""

from framefleet.doors import Plugin

PLUGIN = Plugin(commands={"Use clips": ["framefleet.plugins.compact.command:compact_command"]})
