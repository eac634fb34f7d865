"""The command `framefleet status`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text
from typer import Exit, Option

from framefleet.api.commands import duration, stdout
from framefleet.api.errors import command, count_text
from framefleet.cluster.driver.progress import num_rendering, with_inner
from framefleet.jobs import options
from framefleet.jobs.show.watch import audit_line, gone_line, server_lines
from framefleet.pipeline.metrics import BLOCKED_PLACES
from framefleet.plugins.watch.failures import failure_values, one_line

if TYPE_CHECKING:
    from framefleet.plugins.watch.status import DriverSeen, Status, StatusReader

_Watch = Annotated[bool, Option("--watch", "-w", help="Refresh until the job ends.")]
_Check = Annotated[
    bool,
    Option(
        "--check",
        help="Exit with code 1 if rows failed, clips are missing, the last run broke off, or rows are left "
        "and the driver has ended, is silent or is paused; 2 if there is no such output, or it cannot be "
        "opened, e.g. without credentials; 3 if its store cannot be reached.",
    ),
]


def status_command(
    output: options.OutputToRead,
    watch: _Watch = False,
    every_s: options.Every = 5.0,
    check: _Check = False,
    as_json: options.AsJson = False,
    sets: options.StorageSets = None,
) -> None:
    """Show the progress of an output: rows done, failed and left, rate, time left, workers and last errors.

    Only reads the output's files, so it works on any machine that can reach them. --watch ends when no job is
    running.
    """
    from framefleet.api.jobs import output_at
    from framefleet.plugins.watch.status import StatusReader

    opened = output_at(output, sets)
    reader = StatusReader(opened)
    if not watch and not as_json:
        is_plain = not stdout.is_terminal
        stdout.print(status_picture(reader.status(), has_bar=not is_plain), soft_wrap=is_plain)
    elif not watch:
        stdout.say(json.dumps(as_values(reader.status())))
    elif as_json or not stdout.is_terminal:
        for status in _statuses(reader, every_s):
            stdout.say(json.dumps(as_values(status)) if as_json else headline_of(status))
    else:
        with Live(console=stdout, auto_refresh=False) as live:
            for status in _statuses(reader, every_s):
                live.update(status_picture(status), refresh=True)
    is_well = not (check and reader.status().needs_attention)
    raise Exit(0 if is_well else 1)


def _statuses(reader: StatusReader, every_s: float) -> Iterator[Status]:
    """Yield the status every `every_s` seconds, until no driver is running."""
    while True:
        status = reader.status()
        yield status
        if not status.is_under_way:
            return
        time.sleep(every_s)


def as_values(status: Status) -> dict[str, Any]:
    failures = [failure_values(row) | {"traceback": None} for row in status.last_failures]
    driver = asdict(status.driver)
    del driver["progress"]  # its values are also in the status
    return with_inner(status, as_values) | {"driver": driver, "last_failures": failures}


def headline_of(status: Status) -> str:
    """Return all counts in one line, with inner outputs first."""
    inner = "".join(f"{name}: {_counts_of(one)}; " for name, one in status.inner.items())
    return f"{inner}in full: {_counts_of(status)}" if inner else _counts_of(status)


def _counts_of(status: Status) -> str:
    of = "" if status.num_rows is None else f"{status.num_done:,}/"
    rows = count_text(status.num_done if status.num_rows is None else status.num_rows, "row")
    parts = [f"{of}{rows} done"]
    for count, what in (
        (status.num_failed, "failed"),
        (status.num_invalid, "invalid"),
        (status.num_left or 0, status.left_text),
        (status.num_former, "done but no longer in the table"),
    ):
        if count:
            parts.append(f"{count:,} {what}")
    if status.rows_per_s is not None and status.is_moving:
        parts.append(f"{status.rows_per_s:.2f} rows/s")
    if status.eta_s is not None:
        parts.append(f"{duration(status.eta_s)} left")
    if status.paused_since:
        parts.append(f"paused since {one_line(status.paused_since)}")
    elif status.driver.state == "running" and status.driver.progress and not status.workers:
        parts.append(f"no worker is ready yet ({duration(status.driver.progress.elapsed_s)})")
    if status.workers and status.is_moving:
        parts.append(f"workers rendering: {num_rendering(status.workers)}")
    return ", ".join(parts)


def status_picture(status: Status, *, has_bar: bool = True) -> RenderableType:
    """Return the whole status: counts with a bar, driver, workers, last errors, and what to do.

    Inner outputs come first.
    """
    own = _picture_of(status, has_bar=has_bar)
    if not status.inner:
        return own
    pictures = [
        Group(Text(f"{name}:"), _picture_of(one, has_bar=has_bar)) for name, one in status.inner.items()
    ]
    return Group(*pictures, Text("in full:"), own)


def _picture_of(status: Status, *, has_bar: bool) -> RenderableType:
    from framefleet.jobs.show.progress import bar_and, workers_table

    top: RenderableType = Text(_counts_of(status))
    if has_bar and status.num_rows is not None:
        top = bar_and(_counts_of(status), status.num_done + status.num_failed, status.num_rows)
    lines: list[RenderableType] = [top, Text(_of_driver(status.driver), style="dim")]
    if status.workers:
        lines.append(workers_table(status.workers))
    elapsed_s = status.driver.progress.elapsed_s if status.driver.progress else 0.0
    lines += map(Text, server_lines(status.figures, elapsed_s))
    lines += [
        Text(f"failed: row {row.row_id}: {row.error_type}: {one_line(row.message)}", "red")
        for row in status.last_failures
    ]
    if status.audits and (num_records := status.num_done + status.num_former):
        lines.append(Text(f"audit: {audit_line(status.audits, num_records)}"))
    lines += map(Text, status.notes)
    if num_blocked := round(BLOCKED_PLACES.total(status.figures)):
        lines.append(
            Text(f"machines and workers no longer used: {num_blocked:,}; the job's log says why", "red")
        )
    if status.gone:
        lines.append(Text(one_line(gone_line(status.gone)), "red"))
    if status.over_budget:
        lines.append(Text(f"stopped: {one_line(status.over_budget)}"))
    if status.driver.error:
        lines.append(Text(f"stopped: {one_line('; '.join(status.driver.error.splitlines()))}", "red"))
    if status.num_left and status.driver.state == "ended":
        lines.append(Text(f"to continue: {one_line(status.to_continue or 'run the same command again')}"))
    if status.num_failed:
        lines.append(Text(f"to list them all: {command('failures', status.output)}"))
    return Group(*lines)


def _of_driver(driver: DriverSeen) -> str:
    who = f"pid {driver.pid} on {one_line(driver.host)} since {one_line(driver.started_at)}"
    heard = "" if driver.told_s is None else f", heard {duration(driver.told_s)} ago"
    match driver.state:
        case "running":
            return f"driver: {who}{heard}"
        case "silent":
            return f"driver: {who} is silent{heard}: it ended, is suspended, or cannot write to the output"
        case "gone":
            return f"driver: none; {who} was killed or could not write here: run the same command again"
        case "ended":
            ago = "" if driver.told_s is None else f" {duration(driver.told_s)} ago"
            return f"driver: none; the last one began {one_line(driver.started_at)} and ended{ago}"
        case "unknown":
            return "driver: its file cannot be read"
        case _:
            return "driver: none yet"
