"""What plugins add to framefleet, and which plugins there are.

A plugin is one value of the type `Plugin`. Ours are in plugins/, one folder each. Somebody else's package
registers its own under the entry point group `framefleet.plugins`. The core imports no plugin: it asks here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, TypeAlias

from framefleet.pipeline.errors import PluginError

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.stores.store import Store

Command: TypeAlias = Callable[..., None]


class Listener:
    """Follows the rendering of one output. A plugin overrides what it needs; nothing in it may raise."""

    def rendering(self, store: Store) -> AbstractContextManager[None]:
        """Enter the context when rows begin to be rendered. It ends when they are done, or with an error."""
        return nullcontext()

    def ending_lines(self, store: Store) -> Sequence[str]:
        """Return what `framefleet render` prints about the plugin's files when the job has ended."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """What one plugin adds. Each command imports its module, which imports the rest only when it is used."""

    # Panel of `framefleet --help`: functions for Typer, named for what is typed with `_command` after it.
    commands: Mapping[str, Sequence[Command]] = field(default_factory=dict)
    listeners: Sequence[Listener] = ()


_GROUP = "framefleet.plugins"
# In the order in which `framefleet --help` lists their commands.
_OURS = ("demo", "pages", "export", "doctor")


@cache
def plugins() -> Mapping[str, Plugin]:
    """Return all plugins by name, ours first. Raises PluginError for one that cannot be used."""
    by_name = {name: _of_ours(name) for name in _OURS}
    for entry in sorted(entry_points(group=_GROUP), key=lambda entry: entry.name):
        if entry.name in by_name:
            raise PluginError(
                f"{_title(entry)}: another plugin has the same name",
                f"uninstall one of them, or rename it in its entry points of the group {_GROUP}",
            )
        by_name[entry.name] = _load(entry)
    return by_name


def listeners() -> Sequence[Listener]:
    """Return the listeners of all plugins."""
    return [listener for plugin in plugins().values() for listener in plugin.listeners]


def _of_ours(name: str) -> Plugin:
    plugin: Plugin = import_module(f"framefleet.plugins.{name}.plugin").PLUGIN
    return plugin


def _load(entry: EntryPoint) -> Plugin:
    try:
        plugin = entry.load()
    except Exception as error:  # somebody else's code: whatever it raises, say whose it is
        problem = f"{_title(entry)}: {entry.value} cannot be imported: {type(error).__name__}: {error}"
        raise PluginError(problem, "repair or uninstall its package") from error
    if not isinstance(plugin, Plugin):
        raise PluginError(
            f"{_title(entry)}: {entry.value} is a {type(plugin).__name__}",
            "have the entry point name a value of the type framefleet.doors.Plugin",
        )
    return plugin


def _title(entry: EntryPoint) -> str:
    return f"plugin {entry.name}" + (f" of the package {entry.dist.name}" if entry.dist else "")
