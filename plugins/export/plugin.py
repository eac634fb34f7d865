"""The command `framefleet export`."""

from framefleet.api import Plugin

PLUGIN = Plugin(commands={"Use clips": ["framefleet.plugins.export.command:export_command"]})
