"""Register `framefleet verify`, `replay` and `repair`."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    commands={
        "Check and repair": [
            "framefleet.plugins.keep.verify.command:verify_command",
            "framefleet.plugins.keep.replay.command:replay_command",
            "framefleet.plugins.keep.repair.command:repair_command",
        ]
    },
    files={".verify": "derived"},
)
