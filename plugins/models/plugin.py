"""Register the commands `framefleet model list`, `info`, `lock` and `verify`."""

from framefleet.api import Plugin

_COMMANDS = "framefleet.plugins.models.command"

PLUGIN = Plugin(
    commands={"model": [f"{_COMMANDS}:{name}_command" for name in ("list", "info", "lock", "verify")]}
)
