"""What `framefleet render` and `plan` do with a checked job, and what they print about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rich import box
from rich.table import Table

from framefleet.cluster.progress import Summary
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.plan import JobPlan, plan_job
from framefleet.jobs.render.survey import check_valid
from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.headline import duration
from framefleet.jobs.show.libraries import quiet_imports
from framefleet.jobs.show.progress import watch_on
from framefleet.pipeline.errors import TableError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs.glance import Gone
from framefleet.pipeline.outputs.parts.records import FAILURES, RECORDS
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.render.probe.probe import Probed
from framefleet.pipeline.rows.sweeps.swept import Swept

MAX_SHAPES_SHOWN = 30  # a screenful


def show_render(job: Job, *, only: Collection[str] | None = None) -> int:
    """Render; return the exit code. only: as of `render_job`."""
    quiet_imports()
    from framefleet.jobs.render.render import render_job

    with watch_on(stderr) as watch:
        summary = render_job(job, watch, only=only)
    for line in ending_lines(summary, Store(job.output, job.storage_options)):
        stderr.say(line)
    return exit_code(summary)


def exit_code(summary: Summary) -> int:
    """Return 1 where not every row has a clip."""
    return 1 if summary.failed or summary.gone or summary.num_parts_gone else 0


def show_plan(job: Job, *, probe: bool = False) -> None:
    """Print the plan; then raise TableError if rows would keep `render` from starting, or fail in it."""
    quiet_imports()
    with watch_on(stderr) as watch:
        plan = plan_job(job, watch, probe=probe)
    if isinstance(plan.resolved.table, Swept):
        stdout.say(f"sweep:  {plan.resolved.table}")
    else:
        stdout.say(f"table:  {plan.resolved.table.location}")
    stdout.say(f"output: {plan.resolved.store.url_of('')}")
    if options := plan.resolved.model.options.numerics():
        stdout.say(f"model:  {', '.join(f'{name}: {_shown(value)}' for name, value in options.items())}")
    stdout.print(_counts(plan))
    stdout.print(_shapes(plan))
    check_valid(plan.survey, plan.resolved.table, on_invalid=job.on_invalid, verb="rendered")
    for line in plan.survey.invalid_lines():
        stdout.say(f"left out: {line}")
    if plan.probed:
        show_probed(plan.probed, plan.resolved.table.location)


def show_probed(probed: Probed, table: str) -> None:
    """Say what the pipeline takes; raise TableError for what it refuses."""
    for line in probed.unknown:
        stdout.say(f"not probed: {line}")
    if probed.refused:
        lines = "\n".join(f"{problem}; {fix}" for problem, fix in probed.refused)
        problem = f"table {table}: rows of {len(probed.refused)} shapes would fail\n{lines}"
        raise TableError(problem, "correct them")
    stdout.say(f"probed: the pipeline takes every {'other ' * bool(probed.unknown)}shape")


def ending_lines(summary: Summary, store: Store) -> list[str]:
    """Return what is said when a job has ended."""
    if not summary.done and not summary.failed:
        lines = [] if summary.gone or summary.num_parts_gone else ["nothing to do: every row has a record"]
    else:
        batch = f", mean batch {summary.mean_batch:.1f}" if summary.mean_batch else ""
        lines = [f"{summary.done:,} rows rendered in {duration(summary.elapsed_s)}{batch}"]
        if summary.num_adopted:
            lines.append(
                f"{summary.num_adopted:,} of them were not rendered: an earlier run left their clips"
            )
        if summary.num_remembered:
            lines.append(f"{summary.num_remembered:,} batch sizes were remembered, and proven once more")
    lines += idle_lines(summary)
    lines += _audit_lines(summary)
    lines += summary.unused
    lines.append(f"records: {store.url_of(RECORDS)}")
    if summary.gone:
        lines.append(gone_line(summary.gone, store))
    if summary.failed:
        lines.append(
            f"{summary.failed:,} rows failed, see {store.url_of(FAILURES)}; run again to try them again"
        )
    return lines


def gone_line(gone: Gone, store: Store) -> str:
    """Return what is said of clips that are gone."""
    looked = "" if gone.num_seen == gone.num_records else f", of {gone.num_seen:,} that were looked for"
    return (
        f"damaged: {gone.num_gone:,} clips of rows with a record are gone or have another size{looked}, as "
        f"{gone.example}; `framefleet repair {store.url_of('')}` renders them again"
    )


def idle_lines(summary: Summary) -> list[str]:
    """Return how long models had nothing to do, and the causes that are a thousandth of the time or more."""
    if not summary.idle:
        return []
    causes = [f"{cause} {part:.1%}" for cause, part in summary.idle.items() if part >= 0.001]
    return [f"idle: {', '.join([f'{sum(summary.idle.values()):.1%} of the time of workers', *causes])}"]


def _audit_lines(summary: Summary) -> list[str]:
    """Return what audits found, if it is anything to know of."""
    lines = [
        f"audit: rows of {kind} differ in company from plain calls: each was rendered by a plain call"
        for kind in summary.apart
    ]
    if summary.num_again:
        lines.append(f"audit: {summary.num_again:,} rows of these had a record, and were rendered again")
    lines += [
        f"audit: rows of {kind} cannot be repeated: two plain calls of one differ"
        for kind in summary.unrepeatable
    ]
    return [*lines, "audit: see docs/exactness.md"] if lines else []


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def _counts(plan: JobPlan) -> Table:
    counts, survey = plan.counts, plan.survey
    numbers = {
        "rows": survey.num_rows,
        "invalid": survey.num_invalid,
        "duplicates": counts.duplicates,
        "distinct": counts.distinct,
        "done": counts.done,
        "pending": counts.pending,
    }
    return _table("", "rows", numbers)


def _shapes(plan: JobPlan) -> Table:
    shown = dict(list(plan.shapes.items())[:MAX_SHAPES_SHOWN])
    hidden = len(plan.shapes) - len(shown)
    if hidden:
        shown[f"{hidden:,} other shapes"] = sum(plan.shapes.values()) - sum(shown.values())
    return _table("shape", "rows", shown)


def _table(key: str, value: str, numbers: Mapping[str, int]) -> Table:
    table = Table(key, box=box.SIMPLE_HEAD)
    table.add_column(value, justify="right")
    for name, number in numbers.items():
        table.add_row(name, f"{number:,}")
    return table
