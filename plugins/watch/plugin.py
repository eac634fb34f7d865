"""Register `framefleet status`, `failures`, `add`, `pause`, `resume` and `stop`."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    commands={
        "Watch and control": [
            "framefleet.plugins.watch.status_command:status_command",
            "framefleet.plugins.watch.failures:failures_command",
            "framefleet.plugins.watch.command:add_command",
            "framefleet.plugins.watch.command:pause_command",
            "framefleet.plugins.watch.command:resume_command",
            "framefleet.plugins.watch.command:stop_command",
        ]
    }
)
