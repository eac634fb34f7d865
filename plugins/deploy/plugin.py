"""Register `framefleet submit` and `framefleet logs`."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    commands={
        "Render": ["framefleet.plugins.deploy.command:submit_command"],
        "Watch and control": ["framefleet.plugins.deploy.command:logs_command"],
    }
)
