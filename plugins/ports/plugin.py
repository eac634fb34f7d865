"""VideoCrafter, DynamiCrafter and Open-Sora v2, which diffusers lacks, and their converters."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    commands={"model": ["framefleet.plugins.ports.command:convert_command"]},
    families=["framefleet.plugins.ports.families:PORTED_FAMILIES"],
)
