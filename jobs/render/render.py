"""From a job to clips and records: resolved, checked, claimed, then driven until every row has ended."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from framefleet.cluster.driver import earlier_runs
from framefleet.cluster.driver.commit import half_done_in
from framefleet.cluster.driver.lock import PAUSE, DriverLock, check_not_stopped
from framefleet.cluster.driver.progress import Progress, Summary
from framefleet.cluster.driver.run import Run
from framefleet.cluster.driver.stop import BudgetLimit, Spent, Stop
from framefleet.cluster.driver.tally import Tally
from framefleet.cluster.fleet.start import Start, as_joined, check_own_ray
from framefleet.jobs.doors import RunJob, Scope, runners_of
from framefleet.jobs.job.file import check_gpu, load_job
from framefleet.jobs.job.output import store_of_job
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render import row_parts
from framefleet.jobs.render.claim import check_claim, claim
from framefleet.jobs.render.lanes import lanes_named, lanes_of, plan_lanes, rendering_of, setup_of
from framefleet.jobs.render.python_table import stored_rows
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.survey import Survey, check_valid, mark_done, survey_rows, write_invalid
from framefleet.jobs.show.progress import progress_bar, serving_metrics
from framefleet.jobs.show.watch import Awaited, Callback, Watch, wait_for
from framefleet.pipeline.errors import StoreError, TableError, count_text
from framefleet.pipeline.guards.arguments import AtLeastOne
from framefleet.pipeline.guards.json_text import parse_object
from framefleet.pipeline.model.environment import device_name
from framefleet.pipeline.outputs.layout import FAILURES, RECORDS, ROWS
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.outputs.parts.parts import replace_part, tables_by_part
from framefleet.pipeline.outputs.parts.pending_clips import intents_in, sweep
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, fields_named
from framefleet.pipeline.outputs.parts.seals import gone_parts, new_run, parts_in, sweep_late
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.plugin import listeners
from framefleet.pipeline.render.audit.schedule import ComputeTime
from framefleet.pipeline.rows.identity import LaneKey
from framefleet.pipeline.rows.sweeps.sweep import Swept
from framefleet.pipeline.rows.tables.index import RowIndex

log = logging.getLogger(__name__)

_AT_END = ", after the last row of this run"


def render(
    job: Job | str | Path | Mapping[str, Any],
    *,
    table: object = None,
    limit: AtLeastOne | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    metrics_port: str | int | None = None,
) -> Summary:
    """Render every row of a job's table that has no record yet; return how many were done, how many failed.

    job: a job file's path, or its content. table: rows to use instead of the job's table: a pandas DataFrame,
    an Arrow table, a list of dicts, a dict of lists, or a list of prompts; the output stores them in tables/.
    limit: only this many of the table's first rows. on_progress: called instead of showing a progress bar in
    a terminal or a notebook. metrics_port: [HOST:]PORT where Prometheus can scrape figures meanwhile.

    Rows that fail are in the output's failures/, and are tried again when the job is rendered again. Raises
    FramefleetError if nothing could be started, or if fleet or store were lost; finished clips stay, and the
    same call continues from there.
    """
    at = None if metrics_port is None else str(metrics_port)
    with nullcontext(load_job(job)) if table is None else stored_rows(job, table) as loaded:
        url = store_of_job(loaded).url_of("")
        with progress_bar(on_progress) as shown, serving_metrics(shown, at, output=url) as watch:
            return render_job(loaded, watch, limit=limit)


def render_job(
    job: Job, watch: Watch, *, only: Collection[str] | None = None, limit: int | None = None
) -> Summary:
    """Render a job as `render` does, through the runners of its sections, reporting to `watch`.

    only: row_ids to render, if they have no record, in inner outputs too; None: all. Failures of other rows
    stay recorded. limit: as in `render`.
    """
    with ExitStack() as running:
        endings = [running.enter_context(listener.running(job)) for listener in listeners()]
        run: RunJob = render_rows
        for runner in reversed(runners_of(job)):
            run = partial(runner.render, run=run)
        with Start(as_joined(job.fleet), job.retries) as fleet:
            summary = run(job, watch, Scope(only=only, limit=limit, fleet=fleet))
        for listener in listeners():
            listener.rendered(job, watch)
        for note_ending in endings:
            note_ending(summary)
    return summary


def render_rows(job: Job, watch: Watch, scope: Scope) -> Summary:
    """Render the rows of one table into the job's own output."""
    with nullcontext(scope.fleet) if scope.fleet else Start(as_joined(job.fleet), job.retries) as start:
        job = job.model_copy(update={"fleet": start.settings})
        check_own_ray(job.fleet)
        check_gpu(job)
        is_new = not store_of_job(job).list(RECORDS)  # so that there is something to do
        if is_new and job.engine is None:
            model = next(iter(job.by_name.values()))
            start.import_libraries(device=model.device, threads=model.threads)
        with closing(resolve_job(job, watch, scope.table)) as resolved, closing(RowIndex()) as index:
            check_claim(resolved)
            # If the recipe is in a module of the job's, rows may name its other recipes, which workers need.
            is_early = is_new and ":" not in job.recipe
            begin = partial(_begin, start, resolved)
            recalled = None if is_new else row_parts.recall_survey(resolved, index, watch)
            survey = recalled or survey_rows(resolved, index, watch, when_sound=begin if is_early else None)
            check_valid(survey, resolved.table, on_invalid=job.on_invalid, verb="rendered", limit=scope.limit)
            specs = {name: model.plan.spec for name, model in resolved.models.items()}
            for line in survey.unusual_lines(specs):
                watch.say(f"note: {line}")
            for fitted in survey.fitted.values():
                if fitted.num_different:
                    watch.say(f"note: {fitted}; see `inputs.fit`")
            with DriverLock(resolved.store, can_pause=True) as lock:
                claim(resolved)
                earlier_runs.finish_taking_back(resolved.store, index, lock)
                gone = mark_done(resolved, index, watch, lock.check_not_stopped)
                if not recalled:
                    wait_for(watch, f"writing {ROWS}/, the columns of each row")
                    row_parts.write_rows(resolved, index, lock, heed=lock.check_not_stopped)
                    row_parts.remember_survey(resolved, survey)
                if scope.limit is not None:
                    scope = replace(scope, only=[row_id for _, row_id in index.pending_in(0, scope.limit)])
                if scope.only is not None:
                    index.leave_only(scope.only)
                lock.promise(resolved.added, is_partial=not index.is_whole)
                has_pending = index.counts().pending > 0
                try:
                    with ExitStack() as following:
                        for listener in listeners():
                            following.enter_context(listener.following(job, watch))
                            if has_pending:
                                following.enter_context(listener.rendering(resolved.store))
                        summary = render_pending(resolved, survey, index, lock, watch, start, scope)
                except TableError:
                    row_parts.distrust_parts(resolved.store)
                    raise
                if PAUSE in check_not_stopped(resolved.store, lock.epoch, _AT_END):
                    log.warning("not paused: all rows of this run have ended; if others follow, pause again")
                summary = replace(summary, gone=gone, num_invalid=survey.num_invalid, store=resolved.store)
            with suppress(StoreError):  # every row has ended
                check_not_stopped(resolved.store, lock.epoch, _AT_END)  # while the output was given back
            return summary


def render_pending(
    resolved: ResolvedJob,
    survey: Survey,
    index: RowIndex,
    lock: DriverLock,
    watch: Watch,
    start: Start,
    scope: Scope,
) -> Summary:
    run_id, store = new_run(lock.epoch), resolved.store
    write_invalid(resolved, index, run=run_id, heed=lock.check_not_stopped)
    if scope.on_start:
        scope.on_start()
    counts = index.counts()
    parts = [str(resolved.table) if isinstance(resolved.table, Swept) else count_text(survey.num_rows, "row")]
    if counts.duplicates:
        parts.append(count_text(counts.duplicates, "duplicate"))
    if survey.num_invalid:
        is_to_correct = resolved.job.on_invalid != "skip"
        where = "correct them before they are rendered" if is_to_correct else "see invalid/"
        parts.append(f"{survey.num_invalid:,} left out ({where})")
    parts += [f"{counts.done:,} done", f"{counts.pending:,} to render"]
    if num_begun := sum(bool(index.is_pending(row_id)) for row_id in half_done_in(store)):
        parts[-1] += f" ({num_begun:,} of them half-done)"
    if counts.later:
        parts.append(f"{counts.later:,} left for later runs")
    watch.say(", ".join(parts))
    summary = Summary(done=0, failed=0, elapsed_s=0.0, mean_batch=None, before=counts.done)
    if counts.pending:
        run = run_of(resolved, index, lock, run_id=run_id, survey=survey)
        deadline = resolved.job.budget.deadline(scope.began)
        run = replace(run, spent_elsewhere=scope.spent, deadline=deadline)
        if index.is_whole:
            additions = row_parts.Additions(resolved, survey, index, lock, scope.more)
            run = replace(run, more=additions.take, is_extended=scope.more is not None)
        if limit := run.over_budget(Spent(), now=datetime.now().astimezone()):
            return _not_begun(run, limit)
        if line := _budget_line(run):
            watch.say(line)
        summary = _drive(run, resolved, watch, start, scope.stays)
    if summary.over_budget:
        return summary  # as after an interruption: the next run does the rest
    lock.check()
    gone = list(gone_parts(store))
    for path in gone:
        watch.say(f"note: {path}-* has disappeared during this run; run again to render its rows")
    sweep_late(store, lock)
    sweep(store, intents_in(store), lock)
    # Rows of earlier runs' failures were tried again: each has a record or a new failure.
    failures = (part for part in parts_in(store, FAILURES) if part.epoch <= lock.epoch)
    earlier = [part.path for part in failures if part.run != run_id]
    lock.check()
    if scope.only is None:
        store.delete_many(earlier)
    else:
        tried = [row_id for row_id in scope.only if index.is_pending(row_id) is not None]
        replaced = new_run(lock.epoch)
        for number, path in enumerate(earlier, start=1):
            replace_part(store, path, tried, run=replaced, number=number, hold=lock)
    return replace(summary, num_parts_gone=len(gone))


def _not_begun(run: Run, limit: BudgetLimit | Literal["stop_at"]) -> Summary:
    """Return the summary of a run whose budget was spent before it began; `framefleet status` shows it."""
    counts = run.index.counts()
    overrun = run.overrun(limit, Spent(), num_done=counts.done, num_left=counts.pending)
    tally = Tally(counts.pending, before=counts.done, now=0.0)
    progress = replace(tally.progress(0.0), over_budget=overrun.message, to_continue=overrun.to_continue)
    run.lock.tell(progress)
    return tally.summary(progress)


def _budget_line(run: Run) -> str | None:
    """Return how far the budget goes, judging by rows of earlier runs; None if that is not known."""
    counts = run.index.counts()
    num_left = run.num_rows_left(counts.done)
    if num_left is None:
        return None
    rows = "all" if num_left >= counts.pending else f"about {num_left:,} of the"
    left = count_text(counts.pending, "row")
    return f"budget: enough for {rows} {left} left, if each takes as much as those before"


def _drive(run: Run, resolved: ResolvedJob, watch: Watch, start: Start, stays: Callable[[], bool]) -> Summary:
    """Render the pending rows on a fleet. stays: as in `Scope`."""
    if num_finished := len(run.adoption.finished):
        watch.say(f"reused: {count_text(num_finished, 'clip')} that an earlier run left without a record")
    _begin(start, resolved, *lanes_of(resolved, run.index))
    from framefleet.cluster.driver.driver import Driver  # imports Ray

    what = "joining the Ray cluster" if resolved.job.fleet.address else "starting Ray"
    awaited = Awaited(what=what, since=time.monotonic())
    with Stop() as stop, ExitStack() as ending:
        ending.push(start)  # before another driver may have the lock, unless workers have no row

        def waiting() -> None:
            watch.show(awaited)
            stop.check()
            run.lock.check_not_stopped()

        start.is_urgent = lambda: stop.is_urgent
        summary = Driver(run, on_progress=watch.show, stop=stop).run(start.fleet(waiting))
        if not (summary.over_budget or stop.is_asked) and stays():
            ending.pop_all()
        return summary


def _begin(start: Start, resolved: ResolvedJob, *lanes: LaneKey) -> None:
    """Start the fleet, unless it has started. lanes: the first one is that of its first worker."""
    setups = {lane: setup_of(resolved, lane) for lane in (*lanes, *lanes_named(resolved))}
    names = [resolved.models[lane.model].spec.class_name for lane in setups]
    start.begin(setups, names)


def run_of(
    resolved: ResolvedJob, index: RowIndex, lock: DriverLock, *, run_id: str, survey: Survey | None = None
) -> Run:
    """Return a run of the rows that are left. run_id: never used before. survey: of the rows in the index."""
    job, store = resolved.job, resolved.store
    run = Run(
        **rendering_of(resolved),
        run_id=run_id,
        fleet=job.fleet,
        retries=job.retries,
        budget=job.budget,
        order=job.order,
        table=resolved.table,
        rows=resolved.rows,
        index=index,
        lock=lock,
        lanes=plan_lanes(resolved, index, survey or Survey()),
        spent=earlier_runs.spent_before(store) if job.budget.is_limited else Spent(),
        model_time=ComputeTime() if resolved.audit.limit is None else earlier_runs.model_time_before(store),
        device_name=_first_device(store) if job.fleet.same_gpu else None,
    )
    if job.budget.is_limited and run.over_budget(Spent(), now=datetime.now().astimezone()):
        return run  # without reading clips: none would be adopted
    left = [intent for intent in intents_in(store) if index.is_pending(intent.row_id)]
    opened = resolved.models.items()
    models = {name: (model.settings.name, model.identity.model_digest) for name, model in opened}
    return replace(run, adoption=earlier_runs.find_adoptable(resolved, left, models))


def _first_device(store: Store) -> str:
    """Return the device that rendered the first record of an output; "" if there is none."""
    for _, records in tables_by_part(store, fields_named(FIRST_FIELDS, "environment")):
        if len(records):
            return device_name(parse_object(records["environment"][0].as_py()))
    return ""


@dataclass(slots=True)
class FailedRows:
    """Rows that failed, of inner outputs too. examples: one message for each type of error."""

    num_by_type: Counter[str] = field(default_factory=Counter)
    num_others: Counter[str] = field(default_factory=Counter)  # with errors that were not asked for
    examples: dict[str, str] = field(default_factory=dict)
    row_ids: set[str] = field(default_factory=set)


def retry(
    job: Job | str | Path | Mapping[str, Any],
    *,
    error_types: Collection[str] = (),
    sets: Sequence[str] = (),
    on_progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Render only the failed rows of a job again; return how many were done, and how many failed.

    job: a job file's path, or its content. error_types: only rows with these errors, e.g. "OutOfMemory".
    sets: keys of the job, e.g. "fleet.workers=2". Raises the errors of `render`.
    """
    loaded = load_job(job, sets)
    failed = rows_to_retry(loaded, error_types)
    if not failed.row_ids:
        store = Store(loaded.output, loaded.storage_options)
        return Summary(done=0, failed=0, elapsed_s=0.0, mean_batch=None, store=store)
    return render_job(loaded, Callback(on_progress), only=failed.row_ids)


def rows_to_retry(job: Job, error_types: Collection[str] = ()) -> FailedRows:
    """Return the failed rows of a job and its inner outputs: those with these error types, or all."""
    failed = FailedRows()
    for row in Output.open(job.output, job.storage_options).failures():
        if error_types and row.error_type not in error_types:
            failed.num_others[row.error_type] += 1
        else:
            failed.num_by_type[row.error_type] += 1
            failed.examples.setdefault(row.error_type, row.message)
            failed.row_ids.add(row.row_id)
    return failed
