"""The command `framefleet failures`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from rich.text import Text
from typer import Option

from framefleet.api.commands import stderr, stdout
from framefleet.api.errors import command, count_text, escaped
from framefleet.jobs import options
from framefleet.pipeline.outputs.layout import INVALID
from framefleet.pipeline.plugin import inner_outputs

if TYPE_CHECKING:
    from framefleet.api.outputs import FailedRow, Output

_MAX_PROMPT = 100  # characters; enough to recognize the row
_MAX_MESSAGE = 500  # characters; some errors quote whole tensors
_MAX_TYPES = 50  # types of errors shown, as there may be any number

_Traceback = Annotated[bool, Option("--traceback", help="Show the traceback of each error.")]
_Limit = Annotated[int, Option("--limit", min=1, help="Number of rows to show for each type of error.")]


def failures_command(
    output: options.OutputToRead,
    error_types: options.ErrorTypes = None,
    limit: _Limit = 10,
    traceback: _Traceback = False,
    as_json: options.AsJson = False,
    sets: options.StorageSets = None,
) -> None:
    """List the failed rows, each with reason, fix, number of attempts and workers.

    Also lists the rows that `on_invalid: skip` left out.

    Needs no cluster and no model. The exit code is 0 with or without failures.
    """
    from framefleet.api.jobs import output_at

    opened = output_at(output, sets)

    def is_wanted(row: FailedRow) -> bool:
        return not error_types or row.error_type in error_types

    if as_json:
        for row in filter(is_wanted, opened.failures()):
            stdout.say(json.dumps(failure_values(row)))
    else:
        _show_by_type(opened, is_wanted, limit, traceback)
        if not error_types:
            _show_invalid(opened, limit=limit)


def failure_values(row: FailedRow) -> dict[str, Any]:
    is_of = {f"is_{section}": row.inner == name for name, section in inner_outputs().items()}
    return asdict(row) | is_of | {"failed_at": row.failed_at.isoformat()}


def _show_by_type(
    opened: Output, is_wanted: Callable[[FailedRow], bool], limit: int, traceback: bool
) -> None:
    """Print at most `limit` rows of each type, the most frequent type first, and how to retry them."""
    counts, others = Counter[str](), Counter[str]()
    shown: dict[str, list[FailedRow]] = {}  # the first rows of each type
    for row in opened.failures():
        if not is_wanted(row):
            others[row.error_type] += 1
            continue
        counts[row.error_type] += 1
        if counts[row.error_type] <= limit and (row.error_type in shown or len(shown) < _MAX_TYPES):
            shown.setdefault(row.error_type, []).append(row)
    if not counts:
        kinds = ", ".join(f"{one_line(kind)} ({count:,})" for kind, count in others.most_common(_MAX_TYPES))
        stderr.say(f"no row of {opened.url} failed" + f" with that error; there are {kinds}" * bool(kinds))
        return
    for kind, count in counts.most_common(_MAX_TYPES):
        stdout.say(Text(f"{one_line(kind)}: {count_text(count, 'row')}", style="bold red"))
        for row in shown.get(kind, []):
            _show(row, traceback=traceback)
        if count > limit:
            stdout.say(f"  and {count - limit:,} more: --limit, or --json for all")
    if not traceback and any(row.traceback for rows in shown.values() for row in rows):
        stderr.say(f"to see tracebacks: {command('failures', opened.url, '--traceback')}")
    stderr.say(f"to retry them: {command('retry', 'JOB.YAML')}")


def _show_invalid(opened: Output, *, limit: int) -> None:
    """Print the first rows that `on_invalid: skip` left out."""
    count = 0
    for table in opened.invalid_rows():
        for row in table.slice(0, max(0, limit - count)).select(["row_index", "reason", "fix"]).to_pylist():
            stdout.say(f"  row {row['row_index']:,} was left out: {one_line(str(row['reason']))}")
            stdout.say(Text("    hint: ", style="cyan").append(one_line(str(row["fix"])), style="default"))
        count += len(table)
    if count:
        rows = f"{count_text(count, 'row')} left out by `on_invalid: skip`"
        stderr.say(f"{rows}; all of them: {opened.store.url_of(INVALID)}")


def _show(row: FailedRow, *, traceback: bool) -> None:
    positions = ", ".join(f"{position:,}" for position in row.positions[:5])
    more = f" and {len(row.positions) - 5:,} more" if len(row.positions) > 5 else ""
    tried = count_text(row.attempts, "attempt")
    where = f" on {one_line(', '.join(dict.fromkeys(row.workers)))}" if row.workers else ""
    which = inner_outputs().get(row.inner, "row")
    title = Text(f"  {which} {positions}{more}", style="bold")
    stdout.say(title.append(f"  {row.row_id}  {tried}{where}", "dim"))
    with suppress(ValueError, AttributeError):  # outputs are not trusted
        if prompt := one_line(str(json.loads(row.arguments).get("prompt") or "")):
            stdout.say(Text(f"    {prompt[:_MAX_PROMPT]}{'...' * (len(prompt) > _MAX_PROMPT)}", "dim"))
    stdout.say(f"    {one_line(row.message)}")
    if row.fix:
        stdout.say(Text("    hint: ", style="cyan").append(one_line(row.fix), style="default"))
    if traceback and row.traceback:
        stdout.say("\n".join(f"    | {line}" for line in row.traceback.rstrip().splitlines()))


def one_line(text: str) -> str:
    """Return text of a row as one line, so that it cannot forge lines of output."""
    line = escaped(text.strip().replace("\n", "\\n"))
    return line if len(line) <= _MAX_MESSAGE else f"{line[:_MAX_MESSAGE]}..."


def failures(output: str, *, storage_options: Mapping[str, Any] | None = None) -> list[FailedRow]:
    """Return the failed rows of an output without a record, in the order of their table.

    Rows of inner outputs come first. storage_options: for fsspec. Raises JobError if there is no output.
    """
    from framefleet.api.outputs import Output

    rows = Output.open(output, storage_options).failures()
    return sorted(rows, key=lambda row: (not row.inner, row.positions))
