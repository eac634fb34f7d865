"""What plugins add to framefleet, and which plugins there are.

A plugin is one value of the type `Plugin`. Ours are in plugins/, one folder each. Somebody else's package
registers its own under the entry point group `framefleet.plugins`. The core imports no plugin: it asks here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache, partial
from importlib import import_module
from importlib.metadata import EntryPoint, distributions
from itertools import chain
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from pydantic import TypeAdapter, ValidationError

from framefleet.pipeline.errors import PluginError

if TYPE_CHECKING:
    from rich.table import Table

    from framefleet.cluster.driver.progress import Summary
    from framefleet.cluster.driver.stop import Spent
    from framefleet.jobs.job.schema import Job, TableJob
    from framefleet.jobs.job.section import ListSection, Section
    from framefleet.jobs.plan.plan import JobPlan, PlanOptions, Probed
    from framefleet.jobs.render.resolve import ResolvedJob
    from framefleet.jobs.render.survey import Survey
    from framefleet.jobs.show.watch import Watch
    from framefleet.pipeline.model.device_placement import Placer
    from framefleet.pipeline.model.families.family import Family
    from framefleet.pipeline.model.specs.spec import PipelineSpec
    from framefleet.pipeline.outputs.clip_step import ClipStep
    from framefleet.pipeline.outputs.stores.store import Store
    from framefleet.pipeline.rows.identity import Shapes
    from framefleet.pipeline.rows.tables.index import RowIndex

Command: TypeAlias = Callable[..., None]
Place: TypeAlias = str  # "module:name", imported when it is needed


class Listener:
    """Follows the rendering of one output. A plugin overrides what it needs; nothing in it may raise."""

    def check(self, job: Job) -> None:
        """Raise UserError for a job that `running` or `following` would refuse. Does nothing else."""

    def running(self, job: Job) -> AbstractContextManager[Callable[[Summary], None]]:
        """Enter the context before a job is opened; it ends with the run. Yield what gets the summary."""
        return nullcontext(lambda summary: None)

    def following(self, job: Job, watch: Watch) -> AbstractContextManager[None]:
        """Enter the context before the rows of an output are rendered, or found done; it ends after them.

        job: with this output, e.g. of drafts. Entering it may raise a UserError.
        """
        return nullcontext()

    def rendered(self, job: Job, watch: Watch) -> None:
        """Called once all runs of a job have ended without an error."""

    def rendering(self, store: Store) -> AbstractContextManager[None]:
        """Enter the context when rows begin to be rendered. It ends when they are done, or with an error."""
        return nullcontext()

    def ending_lines(self, store: Store) -> Sequence[str]:
        """Return what `framefleet render` prints about the plugin's files when the job has ended."""
        return ()

    def notes(self, store: Store) -> Sequence[str]:
        """Return lines about an output for its status, its pages and the end of `framefleet render`."""
        return ()


class Shown(Protocol):
    """A dataclass, which `framefleet plan --json` prints, and what `framefleet plan` prints of it."""

    def shown(self) -> Iterable[str | Table]: ...


class Memory(Protocol):
    """A dataclass, which `framefleet plan --json` prints: what the largest row of a model takes."""

    @property
    def summary(self) -> str:
        """A few words."""

    @property
    def line(self) -> str:
        """What `framefleet plan` prints: whether the row fits, and what to do where it does not."""


class Planner:
    """Looks closer at a job that is planned. A plugin overrides what it needs."""

    def memory(self, resolved: ResolvedJob, name: str, survey: Survey, wanted: PlanOptions) -> Memory | None:
        """Return what the largest row takes of a model, of which the job has several by name."""
        return None

    def call_pipeline(
        self, shapes: Shapes, spec: PipelineSpec, folder: Path, files: Sequence[str], *, recipes: str | None
    ) -> Probed | None:
        """For `--hollow`: return what a pipeline says to rows. folder: has the model's configs, `files`.

        recipes: the folder where modules of the user's own recipes may be.
        """
        return None

    def predict(
        self, resolved: ResolvedJob, index: RowIndex, watch: Watch, *, num_audits: float
    ) -> Shown | None:
        """For `--probe`: return what the rows of `index` that are left take.

        num_audits: rows that are expected to be rendered twice.
        """
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which rows of a job a run renders."""

    # row_ids; None: all.
    only: Collection[str] | None = None
    # Of the table's first rows, only those without a record.
    limit: int | None = None
    # In place of the job's, whose folder is still where paths in cells start.
    table: str | None = None
    # Of the job's budget on another output.
    spent: Spent | None = None
    # When the command was given; the outputs of a job have one deadline.
    began: datetime = field(default_factory=lambda: datetime.now().astimezone())
    # Called with the lock held, once the output lists which rows of `table` are left out.
    on_start: Callable[[], None] | None = None
    # Adds rows while it renders; for the last runner of a job, as others take none.
    more: More | None = None


class Run(Protocol):
    """Renders the rows of a job that have no record yet; returns how that ended."""

    def __call__(self, job: Job, watch: Watch, scope: Scope) -> Summary: ...


class More(Protocol):
    """Adds rows to a run, by what its records say so far. Called while no rows wait, with the lock held."""

    def __call__(self, num_rows: int) -> str | None:
        """Return the path in the output of a table of further rows, with the same columns; None: no rows.

        num_rows: that workers need now so that none is idle; 0: they have enough for the moment. It takes in
        rows that people have added to the job since; raises UserError where it cannot.
        """


class PlanRun(Protocol):
    """Returns what a run of a job would do."""

    def __call__(
        self, job: Job, watch: Watch, wanted: PlanOptions, *, table: str | None = None
    ) -> JobPlan: ...


class JobRunner:
    """Renders the jobs that have its section by several runs: of the job with other rows, or of other jobs.

    A run may have an output of its own in the folder `inner` of the job's output. Whatever reads the job's
    output, such as `status`, `failures`, `verify` and `repair`, then reads that one too.
    """

    # The section of job files whose jobs it renders; a job file need not have it.
    section: ClassVar[str]
    # Of two runners of a job, the one with the lower number calls the other.
    order: ClassVar[int] = 0
    # Name and folder of an output of its own, which has rows among which it chooses; "": it has none.
    inner: ClassVar[str] = ""
    # Column of the job's records: the row of that output that a clip was made from.
    inner_row_id: ClassVar[str] = ""
    # A row of that output, for people.
    noun: ClassVar[str] = "row"
    # What is said where it chose none of them.
    none_kept: ClassVar[str] = "no row was chosen"
    # Whether `framefleet add` may add rows to its jobs.
    takes_added: ClassVar[bool] = False

    def render(self, job: Job, watch: Watch, scope: Scope, *, run: Run) -> Summary:
        """Render the job by runs of it, or of jobs made of it; return how that ended.

        run: renders one job, by the other runners whose section it has.
        """
        raise NotImplementedError

    def plan(
        self, job: Job, watch: Watch, wanted: PlanOptions, *, run: PlanRun, table: str | None = None
    ) -> JobPlan:
        """Return what `render` would do. run: plans one job. table: as for `render`."""
        return run(job, watch, wanted, table=table)

    def table(self, job: Job) -> str | None:
        """Return the table or pattern of the rows in the job's output; None: those of the job's table."""
        return None

    def check_added(self, job: Job, watch: Watch, file: str) -> None:
        """Raise UserError for rows that cannot be added to the job's table. file: a table of its columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind:
    """A kind of job that is not rendered: those whose job file has a certain section."""

    # What the whole job file may hold.
    schema: type[TableJob]
    # Prints what the job would do. Keyword arguments: `probe` (try it here) and `as_json`.
    show_plan: Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """What one plugin adds, each as "module:name": workers and `--help` import only what they use."""

    # Panel of `framefleet --help`: functions for Typer, named as what is typed, with `_command` after it.
    # Those of the panel "model" are commands of `framefleet model`.
    commands: Mapping[str, Sequence[Place]] = field(default_factory=dict)
    # Section of the job file: a JobKind.
    job_kinds: Mapping[str, Place] = field(default_factory=dict)
    # Section of the job file: its model, a subclass of Section or ListSection with defaults for all keys.
    # That of a runner needs none: it is None in a job file without it.
    sections: Mapping[str, Place] = field(default_factory=dict)
    # Section: the subclass of ClipStep that it asks for where it differs from its defaults.
    clip_steps: Mapping[str, Place] = field(default_factory=dict)
    # Subclasses of JobRunner, each of a section above.
    runners: Sequence[Place] = ()
    # Subclasses of Listener.
    listeners: Sequence[Place] = ()
    # Subclasses of Planner.
    planners: Sequence[Place] = ()
    # Sequences of Family: what is known of models beyond their configs.
    families: Sequence[Place] = ()
    # Type of `model.placement`: the subclass of Placer that it asks for.
    placements: Mapping[str, Place] = field(default_factory=dict)


_GROUP = "framefleet.plugins"
_MAX_MESSAGE = 300  # characters of an error: pydantic's have one line for each mistake
# In the order in which `framefleet --help` lists their commands.
_OURS = (
    *("keep", "models", "deploy", "train", "demo", "pages", "export", "doctor", "ports", "scores"),
    *("marks", "forecast", "rollouts", "compact", "notify", "drafts", "post", "until", "words", "pack"),
    *("forget", "placement"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """What the plugins add that every command needs. errors: why others, or parts of them, cannot be used."""

    plugins: dict[str, Plugin] = field(default_factory=dict)
    sections: dict[str, type[Section | ListSection[Any]]] = field(default_factory=dict)
    runners: list[JobRunner] = field(default_factory=list)
    errors: list[PluginError] = field(default_factory=list)


# Classes that are imported with those that are to be theirs, or before.
_SECTION = "framefleet.jobs.job.section:SectionFacts"
_CLIP_STEP = "framefleet.pipeline.outputs.clip_step:ClipStep"
_PLACER = "framefleet.pipeline.model.device_placement:Placer"
_FAMILY = "framefleet.pipeline.model.families.family:Family"
_loading: list[str] = []  # the plugin that is imported now


@cache
def _loaded() -> _Loaded:
    if _loading:
        problem = f"{_loading[0]}: a module of it imports what needs the sections of all plugins"
        raise PluginError(problem, "import that inside of functions")
    loaded = _Loaded()
    for name in _OURS:
        _add(loaded, name, import_module(f"framefleet.plugins.{name}.plugin").PLUGIN)
    for entry in sorted(_registered(), key=lambda entry: entry.name):
        _loading.append(title := _title(entry))
        with _noted_in(loaded.errors):
            if entry.name in loaded.plugins:
                raise PluginError(
                    f"{title}: another plugin has the same name",
                    f"uninstall one of them, or rename it in its entry points of the group {_GROUP}",
                )
            _add(loaded, entry.name, _load(entry))
        _loading.clear()
    return loaded


@contextmanager
def _noted_in(errors: list[PluginError]) -> Iterator[None]:
    try:
        yield
    except PluginError as error:
        if error not in errors:
            errors.append(error)


def _add(loaded: _Loaded, name: str, plugin: Plugin) -> None:
    """Take a plugin, unless its sections or runners cannot be used."""
    runners = [_made(name, place, JobRunner) for place in plugin.runners]
    sections = {section: _subclass(name, place, _SECTION) for section, place in plugin.sections.items()}
    known, ran = {**loaded.sections, **sections}, {getattr(runner, "section", "") for runner in runners}
    for section in sections.keys() & loaded.sections.keys():
        problem = f"plugin {name}: another plugin has the section {section!r}"
        raise PluginError(problem, "uninstall one of them")
    for door, names in (("runner", ran), ("clip step", plugin.clip_steps)):
        if unknown := [section for section in names if section not in known]:
            problem = f"plugin {name}: it has a {door} of the section {unknown[0]!r}, which no plugin adds"
            raise PluginError(problem, "name the section in `sections` of its Plugin")
    for section in sections.keys() - ran:  # a job need not have it
        _made(name, plugin.sections[section], _SECTION)
    loaded.plugins[name] = plugin
    loaded.sections.update(sections)
    loaded.runners.extend(runners)


def refuse_section(section: str, problem: str) -> None:
    """Have the plugin with this section count as one that cannot be used."""
    loaded = _loaded()
    name = next(name for name, plugin in loaded.plugins.items() if section in plugin.sections)
    for own in loaded.plugins.pop(name).sections:
        del loaded.sections[own]
    loaded.runners[:] = [runner for runner in loaded.runners if runner.section in loaded.sections]
    loaded.errors.append(PluginError(f"plugin {name}: {problem}", "rename it, or uninstall the plugin"))


def plugins() -> Mapping[str, Plugin]:
    """Return all plugins by name, ours first. Raises PluginError where one cannot be used."""
    for error in _loaded().errors:
        raise error
    return _loaded().plugins


def broken_plugins() -> Sequence[PluginError]:
    """Return why plugins cannot be used. Their commands are missing, and no job is opened without them."""
    return _loaded().errors


def commands(check: Callable[[str, Command], None]) -> Mapping[str, Sequence[Command]]:
    """Return the commands of all plugins by their panel, without those that cannot be used.

    check: raises for a function that cannot be a command of a panel.
    """
    by_panel: dict[str, list[Command]] = {}
    for name, plugin in [*_loaded().plugins.items()]:  # which the import of a command may find one to refuse
        for panel, places in plugin.commands.items():
            for place in places:
                with _noted_in(_loaded().errors):
                    function = _named(name, place)
                    with _blamed_on(f"plugin {name}", place, "a command"):
                        check(panel, function)
                    by_panel.setdefault(panel, []).append(function)
    return by_panel


@cache
def job_kinds() -> frozenset[str]:
    """Return the sections that make a job one of another kind. Its output has <section>.json for job.json."""
    return frozenset(section for plugin in _loaded().plugins.values() for section in plugin.job_kinds)


def job_kind(sections: Iterable[str]) -> JobKind | None:
    """Return the kind of a job file with these sections; None: it is rendered."""
    for name, plugin in plugins().items():
        for section in plugin.job_kinds.keys() & {*sections}:
            kind: JobKind = _named(name, plugin.job_kinds[section])
            return kind
    return None


def sections() -> Mapping[str, type[Section | ListSection[Any]]]:
    """Return the models of all sections that plugins add to the job file."""
    return _loaded().sections


def section_of(column: str) -> str | None:
    """Return the section of a job without which its records have no such column; None: there is none."""
    return next((name for name, model in sections().items() if column in model.own_columns), None)


def command_adding(column: str) -> Sequence[str]:
    """Return the words of the command that adds such a column to records; (): there is none."""
    return next((model.added_by[column] for model in sections().values() if column in model.added_by), ())


@cache
def clip_steps() -> Mapping[str, Callable[[], type[ClipStep]]]:
    """Return the step that each of these sections may ask for; imported when called."""
    return {
        section: partial(_subclass, name, place, _CLIP_STEP)
        for name, plugin in _loaded().plugins.items()
        for section, place in plugin.clip_steps.items()
    }


def record_columns() -> Mapping[str, str]:
    """Return the columns of sections that all records have, with Arrow's names of their types."""
    return {name: kind for section in sections().values() for name, kind in section.record_columns.items()}


@cache
def runners() -> Mapping[str, JobRunner]:
    """Return the runner of the jobs that have each of these sections."""
    return {runner.section: runner for runner in sorted(_loaded().runners, key=lambda runner: runner.order)}


def runners_of(job: Job) -> Sequence[JobRunner]:
    """Return the runners of a job, the outermost first."""
    return [runner for section, runner in runners().items() if getattr(job, section) is not None]


def table_of(job: Job, *, inside: JobRunner | None = None) -> str | None:
    """Return the table or pattern of the rows in a job's output; None: those of the job's table.

    inside: as the runners below this one have it.
    """
    runners = [runner for runner in runners_of(job) if inside is None or runner.order > inside.order]
    return next(filter(None, (runner.table(job) for runner in reversed(runners))), None)


def inner_outputs() -> Mapping[str, JobRunner]:
    """Return the runners that have an output of their own, by its name."""
    return {runner.inner: runner for runner in runners().values() if runner.inner}


def listeners() -> Sequence[Listener]:
    """Return a listener of each kind that a plugin has."""
    named = [(name, place) for name, plugin in _loaded().plugins.items() for place in plugin.listeners]
    return [_made(name, place, Listener) for name, place in named]


def notes(store: Store) -> list[str]:
    """Return what listeners say about an output."""
    return [line for listener in listeners() for line in listener.notes(store)]


def placements() -> Mapping[str, Callable[[], type[Placer]]]:
    """Return what puts a model on several devices, by the type of `model.placement`; imported when called."""
    places = [(name, *one) for name, plugin in plugins().items() for one in plugin.placements.items()]
    return {kind: partial(_subclass, name, place, _PLACER) for name, kind, place in places}


def planners() -> Sequence[Planner]:
    """Return a planner of each kind that a plugin has."""
    named = [(name, place) for name, plugin in plugins().items() for place in plugin.planners]
    return [_made(name, place, Planner) for name, place in named]


def families() -> Sequence[Family]:
    """Return the families of models that plugins know."""
    families: list[Family] = []
    for name, plugin in _loaded().plugins.items():
        for place in plugin.families:
            with _noted_in(_loaded().errors), _blamed_on(f"plugin {name}", place, "used"):
                own = [*_named(name, place)]
                if not all(isinstance(family, _named(name, _FAMILY)) for family in own):
                    raise TypeError("it is not a sequence of Family")
                families += own
    return families


def plugin_raising(error: BaseException) -> str:
    """Return the plugin, of another package, whose code an error comes from; "" if it is not one's."""
    modules = [frame.f_globals.get("__name__") or "" for frame, _ in walk_tb(error.__traceback__)]
    packages = {__name__.partition(".")[0]: ""}
    for name, plugin in [*_loaded().plugins.items()][len(_OURS) :]:
        places = [*plugin.sections.values(), *plugin.clip_steps.values(), *plugin.runners, *plugin.listeners]
        places += [*plugin.planners, *chain.from_iterable(plugin.commands.values())]
        packages |= {place.partition(":")[0].partition(".")[0]: name for place in places}
    tops = [module.partition(".")[0] for module in reversed(modules)]
    return next((packages[top] for top in tops if top in packages), "")


def _registered() -> Iterator[EntryPoint]:
    """Yield what installed packages register. In the current folder, which may be the first, nothing is."""
    is_current = not sys.flags.safe_path and os.path.abspath(sys.path[0]) == os.getcwd()
    names = set()
    for package in distributions(path=sys.path[is_current:]):
        entries = package.entry_points.select(group=_GROUP)
        if entries and package.name not in names:
            names.add(package.name)
            yield from entries


def _load(entry: EntryPoint) -> Plugin:
    with _blamed_on(_title(entry), entry.value):
        plugin = entry.load()
    if not isinstance(plugin, Plugin):
        raise PluginError(
            f"{_title(entry)}: {entry.value} is a {type(plugin).__name__}",
            "have the entry point name a value of the type framefleet.doors.Plugin",
        )
    values = {one.name: getattr(plugin, one.name) for one in fields(plugin)}
    try:
        TypeAdapter(Plugin).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"{_title(entry)}: {where} of {entry.value} is {first['input']!r}"
        raise PluginError(problem, "give it the type that framefleet.doors.Plugin has for it") from None
    return plugin


def _named(plugin: str, place: Place) -> Any:
    module, _, name = place.partition(":")
    with _blamed_on(f"plugin {plugin}", place):
        return getattr(import_module(module), name)


def _subclass(plugin: str, place: Place, base: type | Place) -> Any:
    value = _named(plugin, place)
    expected: type = _named(plugin, base) if isinstance(base, str) else base
    if not (isinstance(value, type) and issubclass(value, expected)):
        problem = f"plugin {plugin}: {place} is not a subclass of {expected.__name__}"
        raise PluginError(problem, "repair or uninstall its package")
    return value


def _made(plugin: str, place: Place, base: type | Place) -> Any:
    kind = _subclass(plugin, place, base)
    with _blamed_on(f"plugin {plugin}", place, "made without arguments"):
        return kind()


@contextmanager
def _blamed_on(title: str, place: Place, what: str = "imported") -> Iterator[None]:
    """Say whose code it is: whatever somebody else's raises."""
    try:
        yield
    except PluginError:  # of another one, as where a module imports what needs all sections
        raise
    except (Exception, SystemExit) as error:
        message = " ".join(str(error).split())[:_MAX_MESSAGE]
        problem = f"{title}: {place} cannot be {what}: {type(error).__name__}: {message}"
        raise PluginError(problem, "repair or uninstall its package") from error


def _title(entry: EntryPoint) -> str:
    return f"plugin {entry.name}" + (f" of the package {entry.dist.name}" if entry.dist else "")
