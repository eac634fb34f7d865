"""The command `framefleet pack`."""

from framefleet.api import Plugin

PLUGIN = Plugin(commands={"Use clips": ["framefleet.plugins.pack.command:pack_command"]})
