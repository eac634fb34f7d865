"""What plugins add to framefleet, and which plugins there are.

A plugin is one value of the type `Plugin`. Ours are in plugins/, one folder each. Somebody else's package
registers its own under the entry point group `framefleet.plugins`. The core imports no plugin: it asks here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

from framefleet.pipeline.errors import PluginError

if TYPE_CHECKING:
    from rich.table import Table

    from framefleet.cluster.driver.progress import Summary
    from framefleet.cluster.driver.stop import Spent
    from framefleet.jobs.job.schema import Job, TableJob
    from framefleet.jobs.job.section import ListSection, Section
    from framefleet.jobs.plan.plan import JobPlan, PlanOptions, Probed
    from framefleet.jobs.render.resolve import ResolvedJob
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


class Planner:
    """Looks closer at a job that is planned. A plugin overrides what it needs."""

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
# In the order in which `framefleet --help` lists their commands.
_OURS = (
    *("models", "deploy", "train", "demo", "pages", "export", "doctor", "ports", "scores"),
    *("marks", "forecast", "rollouts", "compact", "notify", "drafts", "post", "until", "words", "pack"),
    "placement",
)


@cache
def plugins() -> Mapping[str, Plugin]:
    """Return all plugins by name, ours first. Raises PluginError for one that cannot be used."""
    by_name: dict[str, Plugin] = {
        name: import_module(f"framefleet.plugins.{name}.plugin").PLUGIN for name in _OURS
    }
    for entry in sorted(entry_points(group=_GROUP), key=lambda entry: entry.name):
        if entry.name in by_name:
            raise PluginError(
                f"{_title(entry)}: another plugin has the same name",
                f"uninstall one of them, or rename it in its entry points of the group {_GROUP}",
            )
        by_name[entry.name] = _load(entry)
    return by_name


def commands() -> Mapping[str, Sequence[Command]]:
    """Return the commands of all plugins by their panel."""
    by_panel: dict[str, list[Command]] = {}
    for name, plugin in plugins().items():
        for panel, places in plugin.commands.items():
            by_panel.setdefault(panel, []).extend(_named(name, place) for place in places)
    return by_panel


@cache
def job_kinds() -> frozenset[str]:
    """Return the sections that make a job one of another kind. Its output has <section>.json for job.json."""
    return frozenset(section for plugin in plugins().values() for section in plugin.job_kinds)


def job_kind(sections: Iterable[str]) -> JobKind | None:
    """Return the kind of a job file with these sections; None: it is rendered."""
    for name, plugin in plugins().items():
        for section in plugin.job_kinds.keys() & {*sections}:
            kind: JobKind = _named(name, plugin.job_kinds[section])
            return kind
    return None


@cache
def sections() -> Mapping[str, type[Section | ListSection[Any]]]:
    """Return the models of all sections that plugins add to the job file."""
    return {section: import_section() for section, import_section in _by_section("sections").items()}


def section_of(column: str) -> str | None:
    """Return the section of a job without which its records have no such column; None: there is none."""
    return next((name for name, model in sections().items() if column in model.own_columns), None)


def command_adding(column: str) -> Sequence[str]:
    """Return the words of the command that adds such a column to records; (): there is none."""
    return next((model.added_by[column] for model in sections().values() if column in model.added_by), ())


@cache
def clip_steps() -> Mapping[str, Callable[[], type[ClipStep]]]:
    """Return the step that each of these sections may ask for; imported when called."""
    return _by_section("clip_steps")


def record_columns() -> Mapping[str, str]:
    """Return the columns of sections that all records have, with Arrow's names of their types."""
    return {name: kind for section in sections().values() for name, kind in section.record_columns.items()}


@cache
def runners() -> Mapping[str, JobRunner]:
    """Return the runner of the jobs that have each of these sections."""
    places = [(name, place) for name, plugin in plugins().items() for place in plugin.runners]
    found = [_named(name, place)() for name, place in places]
    return {runner.section: runner for runner in sorted(found, key=lambda runner: runner.order)}


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


def _by_section(door: Literal["sections", "clip_steps"]) -> dict[str, Callable[[], Any]]:
    by_section: dict[str, Callable[[], Any]] = {}
    for name, plugin in plugins().items():
        for section, place in getattr(plugin, door).items():
            if section in by_section:
                raise PluginError(
                    f"plugin {name}: another plugin has the section {section!r}", "uninstall one of them"
                )
            by_section[section] = partial(_named, name, place)
    return by_section


def listeners() -> Sequence[Listener]:
    """Return a listener of each kind that a plugin has."""
    return [_named(name, place)() for name, plugin in plugins().items() for place in plugin.listeners]


def notes(store: Store) -> list[str]:
    """Return what listeners say about an output."""
    return [line for listener in listeners() for line in listener.notes(store)]


def placements() -> Mapping[str, Callable[[], type[Placer]]]:
    """Return what puts a model on several devices, by the type of `model.placement`; imported when called."""
    places = [(name, *one) for name, plugin in plugins().items() for one in plugin.placements.items()]
    return {kind: partial(_named, name, place) for name, kind, place in places}


def planners() -> Sequence[Planner]:
    """Return a planner of each kind that a plugin has."""
    return [_named(name, place)() for name, plugin in plugins().items() for place in plugin.planners]


def families() -> Sequence[Family]:
    """Return the families of models that plugins know."""
    places = [(name, place) for name, plugin in plugins().items() for place in plugin.families]
    return [family for name, place in places for family in _named(name, place)]


def _load(entry: EntryPoint) -> Plugin:
    try:
        plugin = entry.load()
    except Exception as error:  # somebody else's code: whatever it raises, say whose it is
        raise _unusable(_title(entry), entry.value, error) from error
    if not isinstance(plugin, Plugin):
        raise PluginError(
            f"{_title(entry)}: {entry.value} is a {type(plugin).__name__}",
            "have the entry point name a value of the type framefleet.doors.Plugin",
        )
    return plugin


def _named(plugin: str, place: Place) -> Any:
    module, _, name = place.partition(":")
    try:
        return getattr(import_module(module), name)
    except Exception as error:  # as above
        raise _unusable(f"plugin {plugin}", place, error) from error


def _unusable(title: str, place: Place, error: Exception) -> PluginError:
    problem = f"{title}: {place} cannot be imported: {type(error).__name__}: {error}"
    return PluginError(problem, "repair or uninstall its package")


def _title(entry: EntryPoint) -> str:
    return f"plugin {entry.name}" + (f" of the package {entry.dist.name}" if entry.dist else "")
