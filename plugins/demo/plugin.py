"""The command `framefleet demo`."""

from framefleet.doors import Plugin
from framefleet.plugins.demo.command import demo_command

PLUGIN = Plugin(commands={"Render": [demo_command]})
