"""Register `framefleet plan`."""

from framefleet.api import Plugin

PLUGIN = Plugin(commands={"Render": ["framefleet.plugins.forecast.command:plan_command"]})
