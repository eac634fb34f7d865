"""The command `framefleet export`."""

from framefleet.doors import Plugin
from framefleet.plugins.export.command import export_command

PLUGIN = Plugin(commands={"Use clips": [export_command]})
