"""The command `framefleet doctor`."""

from framefleet.doors import Plugin
from framefleet.plugins.doctor.command import doctor_command

PLUGIN = Plugin(commands={"Check and repair": [doctor_command]})
