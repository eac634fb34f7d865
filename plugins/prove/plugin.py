"""The commands `framefleet prove` and `framefleet check`."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    commands={
        "Check and repair": [
            "framefleet.plugins.prove.command:prove_command",
            "framefleet.plugins.prove.command:check_command",
        ]
    }
)
