"""What each command does with a checked job, and what it prints about it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from rich.table import Table

from framefleet.cluster.progress import Summary
from framefleet.jobs.console import stderr, stdout
from framefleet.jobs.job import Job
from framefleet.jobs.plan import JobPlan, plan_job
from framefleet.jobs.progress import duration, watch_on
from framefleet.jobs.survey import refuse_invalid
from framefleet.pipeline.records import FAILURES, RECORDS
from framefleet.pipeline.store import Store

MAX_SHAPES_SHOWN = 30  # a screenful


def render_command(job: Job) -> int:
    """Render; return how many rows failed."""
    _quiet_libraries()
    from framefleet.jobs.render import render_job

    with watch_on(stderr) as watch:
        summary = render_job(job, watch)
    for line in _ending(summary, Store(job.output, job.storage_options)):
        stderr.print(line, markup=False, soft_wrap=True)
    return summary.failed


def plan_command(job: Job) -> None:
    """Print the plan; then raise TableError if rows would keep `render` from starting."""
    _quiet_libraries()
    with watch_on(stderr) as watch:
        plan = plan_job(job, watch)
    stdout.print(_counts(plan))
    stdout.print(_shapes(plan))
    refuse_invalid(plan.survey, plan.resolved)
    for line in plan.survey.invalid_lines():
        stdout.print(line, markup=False, soft_wrap=True)


def replay_command(output: str, row_id: str, *, model: str | None, save: Path | None) -> bool:
    """Render one row again and print what is equal; return whether the frames are."""
    _quiet_libraries()
    from framefleet.jobs.replay import replay

    replayed = replay(output, row_id, model=model)
    table = Table("", "record", "now", "")
    for name, there, here in replayed.digests:
        table.add_row(name, there, here, "equal" if there == here else "different", style=_style(there == here))
    stdout.print(table)
    for name, there, here in replayed.differences:
        stdout.print(f"{name}: {there} then, {here} now", markup=False, soft_wrap=True)
    if save is not None:
        save.write_bytes(replayed.media)
        stderr.print(f"clip: {save}", markup=False, soft_wrap=True)
    return replayed.is_equal


def script_command(output: str, row_id: str, *, model: str | None) -> None:
    """Print the script that renders one row again."""
    _quiet_libraries()
    from framefleet.jobs.script import replay_script

    print(replay_script(output, row_id, model=model), end="")


def demo_command(output: Path) -> int:
    """Render the demo; print where everything is; return how many rows failed."""
    _quiet_libraries()
    from framefleet.jobs.demo import contact_sheet_of, prepare_demo

    with stderr.status("building a tiny model"):
        job = prepare_demo(output)
    failed = render_command(job)
    sheet = contact_sheet_of(output)
    for name, place in (("clips", output / "clips"), ("records", output / RECORDS), ("contact sheet", sheet)):
        stdout.print(f"{name + ':':<15}{place}", markup=False, soft_wrap=True)
    return failed


def _quiet_libraries() -> None:
    """Before diffusers and transformers are imported: their advice is for those who call them."""
    for name in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)


def _ending(summary: Summary, store: Store) -> list[str]:
    """Return what is said when a job has ended."""
    if not summary.done and not summary.failed:
        lines = ["nothing to do: every row has a record"]
    else:
        batch = f", mean batch {summary.mean_batch:.1f}" if summary.mean_batch else ""
        lines = [f"{summary.done:,} rows rendered in {duration(summary.elapsed_s)}{batch}"]
    lines.append(f"records: {store.url_of(RECORDS)}")
    if summary.failed:
        lines.append(f"{summary.failed:,} rows failed, see {store.url_of(FAILURES)}; run again to try them again")
    return lines


def _counts(plan: JobPlan) -> Table:
    counts, survey = plan.counts, plan.survey
    table = Table(title=f"{plan.resolved.table.location} -> {plan.resolved.store.url_of('')}", show_header=False)
    for name, number in (
        ("rows", survey.num_rows),
        ("invalid", survey.num_invalid),
        ("duplicates", counts.duplicates),
        ("distinct", counts.distinct),
        ("done", counts.done),
        ("pending", counts.pending),
    ):
        table.add_row(name, f"{number:,}")
    return table


def _shapes(plan: JobPlan) -> Table:
    table = Table("shape", "rows")
    for shape, count in list(plan.shapes.items())[:MAX_SHAPES_SHOWN]:
        table.add_row(shape or "the model's own", f"{count:,}")
    hidden = len(plan.shapes) - MAX_SHAPES_SHOWN
    if hidden > 0:
        table.add_row(f"and {hidden:,} more", f"{sum(list(plan.shapes.values())[MAX_SHAPES_SHOWN:]):,}")
    return table


def _style(is_equal: bool) -> str:
    return "green" if is_equal else "red"
