"""`framefleet plan`: what a job would do, and with `--hollow` and `--probe` errors, time and price."""

from framefleet.api import Plugin

PLUGIN = Plugin(commands={"Render": ["framefleet.plugins.forecast.command:plan_command"]})
