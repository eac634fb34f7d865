"""`framefleet failures`: what is typed, and what it prints."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from framefleet.jobs.options import AsJson, OutputToRead, StorageSets, Verbose
from framefleet.jobs.show.console import reporting, stderr, stdout
from framefleet.pipeline.text import command, escaped

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.failed_rows import FailedRow
    from framefleet.pipeline.outputs.output import Output


_MAX_MESSAGE = 500  # characters: some errors quote whole tensors
_MAX_TYPES = 50  # types of errors that are shown; rows may have made up any number of names


_Traceback = Annotated[bool, typer.Option("--traceback", help="Show the traceback of each error.")]
_ErrorTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--error", metavar="TYPE", help="Include only rows with this error, e.g. OutOfMemory; repeatable."
    ),
]
_Limit = Annotated[int, typer.Option("--limit", min=1, help="Number of rows to show for each type of error.")]


def failures_command(
    output: OutputToRead,
    error_types: _ErrorTypes = None,
    limit: _Limit = 10,
    traceback: _Traceback = False,
    as_json: AsJson = False,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """List the rows that failed, with the reason, the fix, the number of attempts and the workers.

    Needs no cluster and no model. The exit code is 0 with or without failures.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import set_values

        options = set_values(sets or []).get("storage_options", {})
        chosen = frozenset(error_types or [])
        if as_json:
            print_failures(output, options, chosen)
        else:
            show_failures(output, options, chosen, limit=limit, traceback=traceback)


def print_failures(output: str, storage_options: Mapping[str, Any], error_types: Collection[str]) -> None:
    """Print a line of JSON for each."""
    from framefleet.pipeline.outputs.output import Output

    for row in _chosen(Output.open(output, storage_options), error_types):
        values = asdict(row) | {"failed_at": row.failed_at.isoformat()}
        stdout.say(json.dumps(values))


def show_failures(
    output: str,
    storage_options: Mapping[str, Any],
    error_types: Collection[str],
    *,
    limit: int,
    traceback: bool,
) -> None:
    """Print them by type, the most frequent first, so many of each; and how to try them again."""
    from framefleet.pipeline.outputs.output import Output

    opened = Output.open(output, storage_options)
    counts, shown = _grouped(_chosen(opened, error_types), limit)
    if not counts:
        stderr.say(f"no row of {opened.url} failed")
        return
    for kind, count in counts.most_common(_MAX_TYPES):
        stdout.say(Text(f"{one_line(kind)}: {count:,} {'row' if count == 1 else 'rows'}", style="bold red"))
        for row in shown.get(kind, []):
            _show(row, traceback=traceback)
        if count > limit:
            stdout.say(f"  and {count - limit:,} more: --limit, or --json for all")
    stderr.say(f"to try them again: {command('retry', opened.url)}")


def _chosen(output: Output, error_types: Collection[str]) -> Iterator[FailedRow]:
    return (row for row in output.failures() if not error_types or row.error_type in error_types)


def _grouped(rows: Iterator[FailedRow], limit: int) -> tuple[Counter[str], dict[str, list[FailedRow]]]:
    """Return how many there are of each type, and the last of each."""
    counts: Counter[str] = Counter()
    shown: dict[str, list[FailedRow]] = {}
    for row in rows:
        counts[row.error_type] += 1
        if counts[row.error_type] <= limit and (row.error_type in shown or len(shown) < _MAX_TYPES):
            shown.setdefault(row.error_type, []).append(row)
    return counts, shown


def _show(row: FailedRow, *, traceback: bool) -> None:
    positions = ", ".join(f"{position:,}" for position in row.positions[:5])
    more = f" and {len(row.positions) - 5:,} more" if len(row.positions) > 5 else ""
    tried = f"{row.attempts} {'attempt' if row.attempts == 1 else 'attempts'}"
    where = f" on {one_line(', '.join(dict.fromkeys(row.workers)))}" if row.workers else ""
    which = "draft" if row.is_draft else "row"
    stdout.say(
        Text(f"  {which} {positions}{more}", style="bold").append(f"  {row.row_id}  {tried}{where}", "dim")
    )
    stdout.say(f"    {one_line(row.message)}")
    if row.fix:
        stdout.say(Text("    hint: ", style="cyan").append(one_line(row.fix), style="default"))
    if traceback and row.traceback:
        stdout.say("\n".join(f"    | {line}" for line in row.traceback.rstrip().splitlines()))


def one_line(text: str) -> str:
    """Return what a row says, which could forge lines of ours, as a part of one."""
    line = escaped(text.strip().replace("\n", "\\n"))
    return line if len(line) <= _MAX_MESSAGE else f"{line[:_MAX_MESSAGE]}..."
