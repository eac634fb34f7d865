"""What jobs ask of plugins: commands, sections, job kinds, file steps, runners and listeners."""

from __future__ import annotations

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
    listeners_made,
    named,
    noted,
    plugins,
    runners_made,
    section_models,
)

if TYPE_CHECKING:
    from framefleet.cluster.driver.progress import Summary
    from framefleet.cluster.driver.stop import Spent
    from framefleet.cluster.fleet.start import Start
    from framefleet.jobs.job.schema import Job, TableJob
    from framefleet.jobs.job.section import ListSection, Section
    from framefleet.jobs.show.watch import Watch
    from framefleet.pipeline.outputs.file_step import FileStep
    from framefleet.pipeline.outputs.stores.store import Store

Command: TypeAlias = Callable[..., None]


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
    # Workers of an earlier run, which render these rows too; None: those of this run alone.
    fleet: Start | None = None
    # Whether the fleet stays for another run, asked after the last row; else it ends with this one.
    stays: Callable[[], bool] = lambda: False


class RunJob(Protocol):
    """Renders the rows of a job that have no record yet; returns how that ended."""

    def __call__(self, job: Job, watch: Watch, scope: Scope) -> Summary: ...


class More(Protocol):
    """Adds rows to a run, by what its records say so far. Called while no rows wait, with the lock held."""

    def __call__(self, num_rows: int) -> str | None:
        """Return the path in the output of a table of further rows, with the same columns; None: no rows.

        num_rows: that workers need now so that none is idle; 0: they have enough for the moment. It takes in
        rows that people have added to the job since; raises UserError where it cannot.
        """


class JobRunner:
    """Renders the jobs that have its section by several runs: of the job with other rows, or of other jobs.

    A run may have an output of its own in the job's: one of `Plugin.inner_outputs` with the same section.
    """

    # The section of job files whose jobs it renders; a job file need not have it.
    section: ClassVar[str]
    # Of two runners of a job, the one with the lower number calls the other.
    order: ClassVar[int] = 0

    def render(self, job: Job, watch: Watch, scope: Scope, *, run: RunJob) -> Summary:
        """Render the job by runs of it, or of jobs made of it; return how that ended.

        run: renders one job, by the other runners whose section it has.
        """
        raise NotImplementedError

    def plan(
        self, job: Job, watch: Watch, wanted: Any, *, run: Callable[..., Any], table: str | None = None
    ) -> Any:
        """Return what `render` would do, a JobPlan of plugins/forecast. wanted: its PlanOptions.

        run: plans one job, called as this is. table: as for `render`.
        """
        return run(job, watch, wanted, table=table)

    def table(self, job: Job) -> str | None:
        """Return the table or pattern of the rows in the job's output; None: those of the job's table."""
        return None

    def check_added(self, job: Job, watch: Watch, file: str) -> None:
        """Raise UserError for rows that cannot be added to the job's table; this one, for any.

        file: of these rows, with the columns of the table.
        """
        problem = f"rows cannot be added: the job has `{self.section}`"
        raise JobError(problem, "add them to its table itself, and run it again")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind:
    """A kind of job that is not rendered: those whose job file has a certain section."""

    # What the whole job file may hold.
    schema: type[TableJob]
    # Prints what the job would do. Keyword arguments: `probe` (try it here) and `as_json`.
    show_plan: Callable[..., None]


def commands(check: Callable[[str, Command], None]) -> Mapping[str, Sequence[Command]]:
    """Return the commands of all plugins by their panel, without those that cannot be used.

    check: raises for a function that cannot be a command of a panel.
    """
    by_panel: dict[str, list[Command]] = {}
    for name, plugin in [*plugins().items()]:  # which the import of a command may find one to refuse
        for panel, places in plugin.commands.items():
            for place in places:
                with noted():
                    function = named(name, place)
                    with blamed_on(f"plugin {name}", place, "a command"):
                        check(panel, function)
                    by_panel.setdefault(panel, []).append(function)
    return by_panel


def job_kinds() -> frozenset[str]:
    """Return the sections that make a job one of another kind. Its output has <section>.json for job.json."""
    return frozenset(section for plugin in plugins().values() for section in plugin.job_kinds)


def job_kind(sections: Iterable[str]) -> JobKind | None:
    """Return the kind of a job file with these sections; None: it is rendered."""
    for name, plugin in plugins().items():
        for section in plugin.job_kinds.keys() & {*sections}:
            kind: JobKind = named(name, plugin.job_kinds[section])
            return kind
    return None


def sections() -> Mapping[str, type[Section | ListSection[Any]]]:
    """Return the models of all sections that plugins add to the job file."""
    return section_models()


def file_steps() -> Mapping[str, Callable[[], type[FileStep]]]:
    """Return the step that each of these sections may ask for; imported when called."""
    return by_name("file_steps")


@cache
def runners() -> Mapping[str, JobRunner]:
    """Return the runner of the jobs that have each of these sections."""
    return {runner.section: runner for runner in sorted(runners_made(), key=lambda runner: runner.order)}


def runners_of(job: Job) -> Sequence[JobRunner]:
    """Return the runners of a job, the outermost first."""
    return [runner for section, runner in runners().items() if getattr(job, section) is not None]


def inner_outputs_of(job: Job) -> Mapping[str, str]:
    """Return the folders of the outputs in a job's own, with the section by which it has each."""
    return {name: section for name, section in inner_outputs().items() if getattr(job, section) is not None}


def table_of(job: Job, *, inside: JobRunner | None = None) -> str | None:
    """Return the table or pattern of the rows in a job's output; None: those of the job's table.

    inside: as the runners below this one have it.
    """
    runners = [runner for runner in runners_of(job) if inside is None or runner.order > inside.order]
    return next(filter(None, (runner.table(job) for runner in reversed(runners))), None)


def listeners() -> Sequence[Listener]:
    """Return a listener of each kind that a plugin has."""
    return listeners_made()


def notes(store: Store) -> list[str]:
    """Return what listeners say about an output."""
    return [line for listener in listeners() for line in listener.notes(store)]
