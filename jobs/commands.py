"""What each command does with a checked job, and what it prints about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from framefleet.cluster.progress import Summary
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.plan import JobPlan, plan_job
from framefleet.jobs.render.survey import refuse_invalid
from framefleet.jobs.replay.recorded_row import Given
from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.progress import duration, watch_on
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.records import FAILURES, RECORDS
from framefleet.pipeline.outputs.store import Store

MAX_SHAPES_SHOWN = 30  # a screenful


def render_command(job: Job) -> int:
    """Render; return how many rows failed."""
    quiet_libraries()
    from framefleet.jobs.render.render import render_job

    with watch_on(stderr) as watch:
        summary = render_job(job, watch)
    for line in _ending(summary, Store(job.output, job.storage_options)):
        stderr.print(line, markup=False, soft_wrap=True)
    return summary.failed


def plan_command(job: Job) -> None:
    """Print the plan; then raise TableError if rows would keep `render` from starting."""
    quiet_libraries()
    with watch_on(stderr) as watch:
        plan = plan_job(job, watch)
    stdout.print(f"table:  {plan.resolved.table.location}", markup=False, soft_wrap=True)
    stdout.print(f"output: {plan.resolved.store.url_of('')}", markup=False, soft_wrap=True)
    stdout.print(_counts(plan))
    stdout.print(_shapes(plan))
    refuse_invalid(plan.survey, plan.resolved)
    for line in plan.survey.invalid_lines():
        stdout.print(f"left out: {line}", markup=False, soft_wrap=True)


def replay_command(output: str, row_id: str, given: Given, *, save: Path | None) -> bool:
    """Render one row again and print what is equal; return whether the frames are."""
    if save is not None and not save.parent.is_dir():
        raise JobError(f"--save {save}: {save.parent} is not a folder", "make it first")
    quiet_libraries()
    from framefleet.jobs.replay.replay import replay

    replayed = replay(output, row_id, given)
    for name, then, now in replayed.digests:
        outcome = Text("equal", style="green") if then == now else Text("different", style="red")
        said = f"  {now}" if then == now else f"\n  record {then}\n  now    {now}"
        stdout.print(Text(f"{name}: ").append(outcome).append(said), soft_wrap=True)
    for name, then, now in replayed.differences:
        line = f"{name}: {then} then, {now} now"  # of records, which could forge the lines above
        stdout.print(line.replace("\n", "\\n"), markup=False, soft_wrap=True)
    if save is not None:
        save.write_bytes(replayed.media)
        stderr.print(f"clip: {save}", markup=False, soft_wrap=True)
    return replayed.is_equal


def script_command(output: str, row_id: str, given: Given) -> None:
    """Print the script that renders one row again."""
    quiet_libraries()
    from framefleet.jobs.replay.script import replay_script

    print(replay_script(output, row_id, given), end="")


def demo_command(output: Path, words: Sequence[str] = (), size: str | None = None) -> int:
    """Render the demo, or one's own words; print where everything is; return how many rows failed.

    size: of one's own, as "9x64x64".
    """
    quiet_libraries()
    from framefleet.jobs.demo import draw_pictures, prepare_demo
    from framefleet.jobs.shapes.size import read_size

    failed = render_command(prepare_demo(output, words, read_size(size) if size else None))
    places = {"clips": output / "clips", **draw_pictures(output)}
    for name, place in places.items():
        stdout.print(f"{name + ':':<15}{place}", markup=False, soft_wrap=True)
    return failed


def quiet_libraries() -> None:
    """Silence diffusers and transformers: their advice and progress bars are for those who call them."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from framefleet.pipeline.model.options.torchao_import import keep_import_warnings

    keep_import_warnings()
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


def _ending(summary: Summary, store: Store) -> list[str]:
    """Return what is said when a job has ended."""
    if not summary.done and not summary.failed:
        lines = ["nothing to do: every row has a record"]
    else:
        batch = f", mean batch {summary.mean_batch:.1f}" if summary.mean_batch else ""
        lines = [f"{summary.done:,} rows rendered in {duration(summary.elapsed_s)}{batch}"]
    lines.append(f"records: {store.url_of(RECORDS)}")
    if summary.failed:
        lines.append(
            f"{summary.failed:,} rows failed, see {store.url_of(FAILURES)}; run again to try them again"
        )
    return lines


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
