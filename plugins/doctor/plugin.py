"""The command `framefleet doctor`."""

from framefleet.api import Plugin

PLUGIN = Plugin(commands={"Check and repair": ["framefleet.plugins.doctor.command:doctor_command"]})
