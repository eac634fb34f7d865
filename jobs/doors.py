"""What plugins add to jobs: commands, sections, job kinds, file steps, runners and listeners."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.plugin import (
    blamed_on,
    by_name,
    inner_outputs,
    listeners,
    named,
    noted,
    plugins,
    runners_made,
)

if TYPE_CHECKING:
    from framefleet.cluster.driver.progress import Summary
    from framefleet.cluster.driver.stop import Spent
    from framefleet.cluster.fleet.start import Start
    from framefleet.jobs.job.schema import Job, TableJob
    from framefleet.jobs.show.watch import Watch
    from framefleet.pipeline.outputs.file_step import FileStep
    from framefleet.pipeline.outputs.stores.store import Store

Command: TypeAlias = Callable[..., None]


class Listener:
    """Follows the rendering of one output. A plugin overrides what it needs; nothing in it may raise."""

    def check(self, job: Job) -> None:
        """Raise UserError for a job that `running` or `following` would refuse. Does nothing else."""

    def running(self, job: Job) -> AbstractContextManager[Callable[[Summary], None]]:
        """Return a context that is entered before a job is opened, and ends with the run.

        It yields a function that gets the summary.
        """
        return nullcontext(lambda summary: None)

    def following(self, job: Job, watch: Watch) -> AbstractContextManager[None]:
        """Return a context that is entered before an output's rows are rendered, even if all are done.

        It ends after the last row; entering it may raise a UserError. job: the job with this output, e.g. the
        one of drafts.
        """
        return nullcontext()

    def rendered(self, job: Job, watch: Watch) -> None:
        """Called once all runs of a job have ended without an error."""

    def rendering(self, store: Store) -> AbstractContextManager[None]:
        """Return a context that is entered when rendering begins, and ends when it is done or fails."""
        return nullcontext()

    def ending_lines(self, store: Store) -> Sequence[str]:
        """Return what `framefleet render` prints about the plugin's files when the job has ended."""
        return ()

    def notes(self, store: Store) -> Sequence[str]:
        """Return lines about an output for its status, its pages and the end of `framefleet render`."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which rows of a job a run renders."""

    # row_ids; None: all.
    only: Collection[str] | None = None
    # Only this many of the table's first rows, as far as they have no record.
    limit: int | None = None
    # Read instead of the job's table. Paths in cells still start in the folder of the job's table.
    table: str | None = None
    # Spent from the job's budget on another output.
    spent: Spent | None = None
    # When the command started: all outputs of a job share one deadline.
    began: datetime = field(default_factory=lambda: datetime.now().astimezone())
    # Called with the lock held, once the output lists which rows of `table` are left out.
    on_start: Callable[[], None] | None = None
    # Adds rows during the run; only for the last runner of a job, as others take no rows.
    more: More | None = None
    # The fleet of an earlier run, which renders these rows too; None: this run starts its own.
    fleet: Start | None = None
    # Called after the last row: whether the fleet stays for another run.
    stays: Callable[[], bool] = lambda: False


class RunJob(Protocol):
    """Renders the rows of a job that have no record yet; returns how that ended."""

    def __call__(self, job: Job, watch: Watch, scope: Scope) -> Summary: ...


class More(Protocol):
    """Adds rows to a run, depending on its records. Called while no rows wait, with the lock held."""

    def __call__(self, num_rows: int, heed: Callable[[], None]) -> str | None:
        """Return the path, in the output, of a table with more rows in the same columns; None: no rows.

        num_rows: how many rows workers need now so that none is idle; 0: they have enough for the moment.
        heed: to be called often while it takes long, so that the driver goes on; what it raises ends this.
        Also takes rows that people have added to the job since, and raises UserError if it cannot.
        """


class JobRunner:
    """Renders a job that has its section in several runs: of the job with other rows, or of other jobs.

    A run may write to an inner output: one of `Plugin.inner_outputs` with the same section.
    """

    # It renders the jobs whose file has this section.
    section: ClassVar[str]
    # Of two runners of a job, the one with the lower number calls the other.
    order: ClassVar[int] = 0

    @abstractmethod
    def render(self, job: Job, watch: Watch, scope: Scope, *, run: RunJob) -> Summary:
        """Render the job, or jobs made from it, in several runs; return how that ended.

        run: renders one job, through the other runners whose section it has.
        """

    def plan(
        self, job: Job, watch: Watch, wanted: Any, *, run: Callable[..., Any], table: str | None = None
    ) -> Any:
        """Return what `render` would do, a JobPlan of plugins/forecast. wanted: its PlanOptions.

        run: plans one job, with the same arguments. table: as `Scope.table`.
        """
        return run(job, watch, wanted, table=table)

    def table(self, job: Job) -> str | None:
        """Return the table or pattern of the rows in the job's output; None: those of the job's table."""
        return None

    def check_added(self, job: Job, watch: Watch, file: str) -> None:
        """Raise UserError for rows that cannot be added to the job's table; by default, for any.

        file: holds these rows, in the columns of the table.
        """
        problem = f"rows cannot be added: the job has `{self.section}`"
        raise JobError(problem, "add them to its table itself, and run it again")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind:
    """A kind of job that is not rendered, recognized by a section of its job file."""

    # What the whole job file may hold.
    schema: type[TableJob]
    # Prints what the job would do. Keyword arguments: `probe` (try it here) and `as_json`.
    show_plan: Callable[..., None]


def commands(check: Callable[[str, Command], None]) -> Mapping[str, Sequence[Command]]:
    """Return the commands of all plugins by panel, except those that cannot be used.

    check: raises for a function that cannot be a command of a panel.
    """
    by_panel: dict[str, list[Command]] = {}
    for name, plugin in [*plugins().items()]:  # a copy: importing a command may remove a plugin
        for panel, places in plugin.commands.items():
            for place in places:
                with noted():
                    function = named(name, place)
                    with blamed_on(f"plugin {name}", place, "a command"):
                        check(panel, function)
                    by_panel.setdefault(panel, []).append(function)
    return by_panel


def job_kinds() -> frozenset[str]:
    """Return the sections that make a job another kind. Its output has <section>.json, not job.json."""
    return frozenset(section for plugin in plugins().values() for section in plugin.job_kinds)


def job_kind(sections: Iterable[str]) -> JobKind | None:
    """Return the kind of a job file with these sections; None: it is rendered."""
    for name, plugin in plugins().items():
        for section in plugin.job_kinds.keys() & {*sections}:
            return named(name, plugin.job_kinds[section])
    return None


def file_steps() -> Mapping[str, Callable[[], type[FileStep]]]:
    """Return, for each section that may ask for a file step, a function that imports the step."""
    return by_name("file_steps")


@cache
def runners() -> Mapping[str, JobRunner]:
    """Return the runners of all plugins by section, in their order."""
    return {runner.section: runner for runner in sorted(runners_made(), key=lambda runner: runner.order)}


def runners_of(job: Job) -> Sequence[JobRunner]:
    """Return the runners of a job, the outermost first."""
    return [runner for section, runner in runners().items() if getattr(job, section) is not None]


def inner_outputs_of(job: Job) -> Mapping[str, str]:
    """Return the folders of a job's inner outputs, each with the section that makes it."""
    return {name: section for name, section in inner_outputs().items() if getattr(job, section) is not None}


def table_of(job: Job, *, inside: JobRunner | None = None) -> str | None:
    """Return the table or pattern of the rows in a job's output; None: those of the job's table.

    inside: ask only the runners below this one.
    """
    runners = [runner for runner in runners_of(job) if inside is None or runner.order > inside.order]
    return next(filter(None, (runner.table(job) for runner in reversed(runners))), None)


def notes(store: Store) -> list[str]:
    """Return what listeners say about an output."""
    return _said(lambda listener: listener.notes(store))


def lines_at_end(store: Store) -> list[str]:
    """Return what listeners say when a job has ended."""
    return _said(lambda listener: listener.ending_lines(store))


def _said(ask: Callable[[Any], Sequence[str]]) -> list[str]:
    """Return the lines of all listeners; those that raise are warned of, as the clips are there."""
    lines: list[str] = []
    for listener in listeners():
        place = f"{type(listener).__module__}:{type(listener).__name__}"
        with noted(), blamed_on("listener", place, "asked"):
            lines += ask(listener)
    return lines
