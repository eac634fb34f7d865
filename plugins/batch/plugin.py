"""The command `framefleet batch`."""

from framefleet.api import Plugin

PLUGIN = Plugin(commands={"Render": ["framefleet.plugins.batch.command:batch_command"]})
