"""What plugins add to framefleet, as plain values, and which plugins are installed.

A plugin is one value of type `Plugin`. Ours are in plugins/, one folder each. Other packages register theirs
under the entry point group `framefleet.plugins`. The core imports no plugin: it asks here, or in
../jobs/doors.py, which has the types that jobs ask for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache, partial
from importlib import import_module
from importlib.metadata import EntryPoint, distributions
from inspect import getattr_static
from itertools import chain
from traceback import walk_tb
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from framefleet.pipeline.errors import PluginError

_Place: TypeAlias = str  # "module:name", imported when it is needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """What one plugin adds, as plain values and "module:name": workers and `--help` import what they use."""

    # Panel of `framefleet --help`: functions for Typer, each named after its command, e.g. `watch_command`.
    # Those of the panel "model" are commands of `framefleet model`. All get --verbose, unless they have it.
    commands: Mapping[str, Sequence[_Place]] = field(default_factory=dict)
    # Section of the job file: a JobKind.
    job_kinds: Mapping[str, _Place] = field(default_factory=dict)
    # Section of the job file: its model, a subclass of Section or ListSection with defaults for all keys. The
    # section of a runner needs no defaults: it is None if the job file does not have it.
    sections: Mapping[str, _Place] = field(default_factory=dict)
    # Score, a column of records: a function that takes frames, (T, H, W, 3) uint8, and a record, and returns
    # a number. `scores:` and `framefleet score --scores` take its name.
    columns: Mapping[str, _Place] = field(default_factory=dict)
    # Section: a function that takes it and the job file's folder, and returns its columns of records; or its
    # late columns, which are added after the record is written.
    columns_of_sections: Mapping[str, _Place] = field(default_factory=dict)
    late_columns_of_sections: Mapping[str, _Place] = field(default_factory=dict)
    # Section: the subclass of FileStep that runs if the section differs from its defaults.
    file_steps: Mapping[str, _Place] = field(default_factory=dict)
    # Subclasses of JobRunner, each for a section above.
    runners: Sequence[_Place] = ()
    # Subclasses of Listener.
    listeners: Sequence[_Place] = ()
    # Sequences of Recipe: job files and cells name them as they name ours.
    recipes: Sequence[_Place] = ()
    # Sequences of Family: what is known about models beyond their configs.
    families: Sequence[_Place] = ()
    # Type of `model.placement`: its subclass of Placer.
    placements: Mapping[str, _Place] = field(default_factory=dict)
    # Type of `engine`: its subclass of Engine.
    engines: Mapping[str, _Place] = field(default_factory=dict)
    # Scheme of a table's URL: the subclass of TableSource that makes the table.
    tables: Mapping[str, _Place] = field(default_factory=dict)
    # Name: a format of `framefleet export`, a subclass of ShardWriter.
    export_formats: Mapping[str, _Place] = field(default_factory=dict)

    # Column that all records have: Arrow's name for its type. Null where no file step fills it. Columns that
    # depend on the job are declared by the step.
    record_columns: Mapping[str, str] = field(default_factory=dict)
    # Section: columns that records have only if the job has this section.
    section_columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # Column: the words of the command that adds it to the records of any output.
    command_columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # File extensions that file steps give to clips, e.g. ".npy": others are not read.
    suffixes: Sequence[str] = ()
    # Files and folders of the plugin in outputs, which may exist before an output begins: "rows", tables of a
    # job's rows, from which `framefleet forget` removes rows; "derived", which can be made again, and which
    # it deletes; "kept", all others.
    files: Mapping[str, Literal["rows", "derived", "kept"]] = field(default_factory=dict)
    # Folder inside a job's output that is an output too, and from whose rows the job chooses: the section of
    # jobs that have it. Their records say in the column `<section>_row_id` from which row a clip was made.
    # Whatever reads the job's output, such as `status`, `failures`, `verify` and `repair`, reads it too.
    inner_outputs: Mapping[str, str] = field(default_factory=dict)


_GROUP = "framefleet.plugins"
_MAX_MESSAGE = 300  # characters of an error: pydantic's have one line for each mistake
# `framefleet --help` lists their commands in this order.
_OURS = (
    *("watch", "forecast", "keep", "models", "deploy", "train", "demo", "pages", "export", "doctor"),
    *("ports", "scores", "marks", "rollouts", "compact", "notify", "drafts", "post", "until", "words"),
    *("pack", "prove", "forget", "placement", "recipes", "batch", "engines", "audit", "lerobot"),
    *("skill", "metadata"),
)
# By field: the base class of its values, imported with them.
_BASES = {
    "sections": "framefleet.jobs.job.section:SectionFacts",
    "file_steps": "framefleet.pipeline.outputs.file_step:FileStep",
    "placements": "framefleet.pipeline.model.device_placement:Placer",
    "engines": "framefleet.pipeline.engine:Engine",
    "tables": "framefleet.pipeline.rows.tables.table_source:TableSource",
    "runners": "framefleet.jobs.doors:JobRunner",
    "listeners": "framefleet.jobs.doors:Listener",
    "export_formats": "framefleet.plugins.export.shard_writer:ShardWriter",
    # Of these two, the class of the values in its sequences.
    "families": "framefleet.pipeline.model.families.family:Family",
    "recipes": "framefleet.pipeline.recipes.recipe:Recipe",
}
# Fields whose names only one plugin may have.
_OF_ONE = ("columns", "placements", "engines", "tables", "export_formats", "job_kinds", "inner_outputs")
_loading: list[str] = []  # the plugin being imported


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """What every command needs of the plugins. errors: why others, or parts of them, cannot be used."""

    plugins: dict[str, Plugin] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    runners: list[Any] = field(default_factory=list)
    errors: list[PluginError] = field(default_factory=list)


@cache
def _loaded() -> _Loaded:
    if _loading:
        problem = f"{_loading[0]}: while imported, it asks for the sections of all plugins"
        raise PluginError(problem, "import modules that need these inside of functions")
    loaded = _Loaded()
    for name in _OURS:
        _add(loaded, name, import_module(f"framefleet.plugins.{name}.plugin").PLUGIN)
    for entry in sorted(_registered(), key=lambda entry: entry.name):
        _loading.append(title := _title(entry))
        with noted(loaded.errors):
            if entry.name in loaded.plugins:
                raise PluginError(
                    f"{title}: another plugin has the same name",
                    f"uninstall one of them, or rename it in its entry points of the group {_GROUP}",
                )
            _add(loaded, entry.name, _load(entry))
        _loading.clear()
    return loaded


@contextmanager
def noted(errors: list[PluginError] | None = None) -> Iterator[None]:
    """Note a PluginError of the block instead of raising it."""
    try:
        yield
    except PluginError as error:
        errors = _loaded().errors if errors is None else errors
        if str(error) not in map(str, errors):  # each time that it is asked for
            errors.append(error)


def _add(loaded: _Loaded, name: str, plugin: Plugin) -> None:
    """Add a plugin. Raises PluginError if its sections or runners cannot be used."""
    runners = [_made(name, place, "runners") for place in plugin.runners]
    sections = {section: _subclass(name, place, "sections") for section, place in plugin.sections.items()}
    known, ran = {**loaded.sections, **sections}, {getattr(runner, "section", "") for runner in runners}
    for section in sections.keys() & loaded.sections.keys():
        problem = f"plugin {name}: another plugin has the section {section!r}"
        raise PluginError(problem, "uninstall one of them")
    for door in _OF_ONE:
        there = {key for other in loaded.plugins.values() for key in getattr(other, door)}
        for key in getattr(plugin, door).keys() & there:
            problem = f"plugin {name}: another plugin has {key!r} in its `{door}`"
            raise PluginError(problem, "rename it, or uninstall one of them")
    of_sections = [plugin.columns_of_sections, plugin.late_columns_of_sections, plugin.section_columns]
    for things, names in (
        ("a runner", ran),
        ("a file step", plugin.file_steps),
        ("columns", chain(*of_sections)),
        ("an inner output", plugin.inner_outputs.values()),
    ):
        if unknown := [section for section in names if section not in known]:
            problem = f"plugin {name}: it has {things} for the section {unknown[0]!r}, which no plugin adds"
            raise PluginError(problem, "name the section in `sections` of its Plugin")
    for section in sections.keys() - ran:  # jobs without it get its defaults
        _made(name, plugin.sections[section], "sections")
    loaded.plugins[name] = plugin
    loaded.sections.update(sections)
    loaded.runners.extend(runners)


def refuse_section(section: str, problem: str) -> None:
    """Count the plugin with this section as one that cannot be used."""
    loaded = _loaded()
    having = (name for name, plugin in loaded.plugins.items() if section in plugin.sections)
    if (name := next(having, None)) is None:  # it was refused for another of its sections
        return
    for own in loaded.plugins.pop(name).sections:
        del loaded.sections[own]
    loaded.runners[:] = [runner for runner in loaded.runners if runner.section in loaded.sections]
    loaded.errors.append(PluginError(f"plugin {name}: {problem}", "rename it, or uninstall the plugin"))


def plugins() -> Mapping[str, Plugin]:
    """Return the usable plugins by name, ours first."""
    return _loaded().plugins


def broken_plugins() -> Sequence[PluginError]:
    """Return the errors of unusable plugins. Raise them where somebody asks for what these would add."""
    return _loaded().errors


def sections() -> Mapping[str, Any]:
    """Return the models of all sections that plugins add to the job file."""
    return _loaded().sections


def runners_made() -> Sequence[Any]:
    """Return one of each class of runners that plugins add."""
    return _loaded().runners


def section_adding(column: str) -> str | None:
    """Return the job's section that adds this column to records; None if no section does."""
    by_section = (pair for plugin in plugins().values() for pair in plugin.section_columns.items())
    return next((section for section, columns in by_section if column in columns), None)


def command_adding(column: str) -> Sequence[str]:
    """Return the words of the command that adds this column to records; () if no command does."""
    by_column = (plugin.command_columns for plugin in plugins().values())
    return next((columns[column] for columns in by_column if column in columns), ())


def columns_of_sections(*, is_late: bool) -> Mapping[str, Callable[..., Any]]:
    """Return by section the function that returns its columns, late or not; imported when called."""

    def call(name: str, place: str, *arguments: Any) -> Any:
        if isinstance(columns := named(name, place)(*arguments), Iterable):
            return columns
        problem = f"plugin {name}: {place} returned {type(columns).__name__}, and no columns"
        raise PluginError(problem, "have it return a list of columns, which may be empty")

    return {
        section: partial(call, name, place)
        for name, plugin in plugins().items()
        for section, place in (
            plugin.late_columns_of_sections if is_late else plugin.columns_of_sections
        ).items()
    }


def clip_suffixes() -> frozenset[str]:
    """Return the file extensions that file steps give to clips."""
    return frozenset(suffix for plugin in plugins().values() for suffix in plugin.suffixes)


def files_of_plugins() -> Mapping[str, str]:
    """Return the plugins' files and folders in outputs, each with its type: rows, derived or kept."""
    return {path: kind for plugin in plugins().values() for path, kind in plugin.files.items()}


def inner_outputs() -> Mapping[str, str]:
    """Return the folders of outputs inside of outputs, each with the section of the jobs that have it."""
    return {name: section for plugin in plugins().values() for name, section in plugin.inner_outputs.items()}


def listeners() -> list[Any]:
    """Return one of each class of listeners that plugins add, without those that cannot be made."""
    found = list[Any]()
    for name, plugin in plugins().items():
        for place in plugin.listeners:
            with noted():
                found.append(_made(name, place, "listeners"))
    return found


def by_name(
    door: Literal["file_steps", "placements", "engines", "tables", "export_formats"],
) -> dict[str, Callable[[], Any]]:
    """Return what plugins add in this field: by section or type, a function that imports the class."""
    return {
        key: partial(_subclass, name, place, door)
        for name, plugin in plugins().items()
        for key, place in getattr(plugin, door).items()
    }


def values_of_plugins(door: Literal["families", "recipes"]) -> list[Any]:
    """Return the values of the plugins' sequences, which are all of one class."""
    values: list[Any] = []
    for name, plugin in plugins().items():
        for place in getattr(plugin, door):
            with noted(), blamed_on(f"plugin {name}", place, "used"):
                own, expected = [*named(name, place)], named(name, _BASES[door])
                if not all(isinstance(value, expected) for value in own):
                    raise TypeError(f"it is not a sequence of {expected.__name__}")
                values += own
    return values


def plugin_raising(error: BaseException) -> str:
    """Return the plugin of another package whose code raised an error; "" if none did."""
    modules = [frame.f_globals.get("__name__") or "" for frame, _ in walk_tb(error.__traceback__)]
    packages = {__name__.partition(".")[0]: ""}
    for name, plugin in [*plugins().items()][len(_OURS) :]:
        values = [getattr(plugin, each.name) for each in fields(plugin)]
        entries = chain.from_iterable(one.values() if isinstance(one, Mapping) else one for one in values)
        texts = chain.from_iterable([entry] if isinstance(entry, str) else entry for entry in entries)
        packages |= {text.partition(":")[0].partition(".")[0]: name for text in texts if ":" in text}
    tops = [module.partition(".")[0] for module in reversed(modules)]
    return next((packages[top] for top in tops if top in packages), "")


def _registered() -> Iterator[EntryPoint]:
    """Yield the entry points of installed packages. Packages in the current folder do not count."""
    is_current = not sys.flags.safe_path and os.path.abspath(sys.path[0]) == os.getcwd()
    names = set()
    for package in distributions(path=sys.path[is_current:]):
        entries = package.entry_points.select(group=_GROUP)
        if entries and package.name not in names:
            names.add(package.name)
            yield from entries


def _load(entry: EntryPoint) -> Plugin:
    with blamed_on(_title(entry), entry.value):
        plugin = entry.load()
    if not isinstance(plugin, Plugin):
        raise PluginError(
            f"{_title(entry)}: {entry.value} is a {type(plugin).__name__}",
            "have the entry point name a value of the type framefleet.api.Plugin",
        )
    values = {each.name: getattr(plugin, each.name) for each in fields(plugin)}
    try:
        TypeAdapter(Plugin).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"{_title(entry)}: {where} of {entry.value} is {first['input']!r}"
        raise PluginError(problem, "use the type of this field in framefleet.api.Plugin") from None
    return plugin


def named(plugin: str, place: _Place) -> Any:
    """Import "module:name" for a plugin. Raises PluginError."""
    module, _, name = place.partition(":")
    with blamed_on(f"plugin {plugin}", place):
        return getattr(import_module(module), name)


def _subclass(plugin: str, place: _Place, door: str) -> Any:
    value, expected = named(plugin, place), named(plugin, _BASES[door])
    if not (isinstance(value, type) and issubclass(value, expected)):
        problem = f"plugin {plugin}: {place} is not a subclass of {expected.__name__}"
        raise PluginError(problem, "repair or uninstall its package")
    members = ((name, getattr_static(value, name)) for name in dir(value))
    if missing := [name for name, member in members if getattr(member, "__isabstractmethod__", False)]:
        problem = f"plugin {plugin}: {place} lacks {', '.join(missing)}, which {expected.__name__} asks for"
        raise PluginError(problem, "add what is missing, or uninstall its package")
    return value


def _made(plugin: str, place: _Place, door: str) -> Any:
    kind = _subclass(plugin, place, door)
    with blamed_on(f"plugin {plugin}", place, "made without arguments"):
        return kind()


@contextmanager
def blamed_on(title: str, place: _Place, what: str = "imported") -> Iterator[None]:
    """Raise a PluginError that names the plugin, whatever its code raises."""
    try:
        yield
    except PluginError:  # of another plugin, e.g. where a module asks for all sections
        raise
    except (Exception, SystemExit) as error:
        message = " ".join(str(error).split())[:_MAX_MESSAGE]
        problem = f"{title}: {place} cannot be {what}: {type(error).__name__}: {message}"
        raise PluginError(problem, "repair or uninstall its package") from error


def _title(entry: EntryPoint) -> str:
    return f"plugin {entry.name}" + (f" of the package {entry.dist.name}" if entry.dist else "")
