"""The command `framefleet forget`."""

from framefleet.api import Plugin

PLUGIN = Plugin(commands={"Use clips": ["framefleet.plugins.forget.command:forget_command"]})
