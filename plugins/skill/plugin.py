"""The command `framefleet skill`."""

from framefleet.api import Plugin

PLUGIN = Plugin(commands={"Set up": ["framefleet.plugins.skill.command:skill_command"]})
