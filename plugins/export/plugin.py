"""The command `framefleet export`."""

from framefleet.doors import Plugin

PLUGIN = Plugin(commands={"Use clips": ["framefleet.plugins.export.command:export_command"]})
