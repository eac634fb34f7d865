"""The command `framefleet demo`."""

from framefleet.api import Plugin

PLUGIN = Plugin(commands={"Render": ["framefleet.plugins.demo.command:demo_command"]})
