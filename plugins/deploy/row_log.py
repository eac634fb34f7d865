"""Print log lines about an output's rows."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import groupby

from framefleet.api.commands import stderr, stdout
from framefleet.api.errors import count_text
from framefleet.api.outputs import Output
from framefleet.plugins.watch.failures import one_line


def show_log(found: Output, row_id: str | None, *, as_json: bool) -> None:
    """Print the log lines of a row, or of all rows that have any.

    An event for several rows at once, e.g. when their worker was lost, is one line; with JSON, one per row.
    """
    line = None
    for _, same in groupby(
        found.log(row_id), lambda one: replace(one, at=one.at.replace(microsecond=0), row_id="")
    ):
        line, *others = same
        if as_json:
            for one in (line, *others):
                stdout.say(json.dumps(asdict(one) | {"at": one.at.isoformat()}))
            continue
        row = "" if row_id else f"  {line.row_id}"
        at = line.at.isoformat(" ", "seconds")
        about = f"{at}  {line.level:7}  {line.worker:10}{row}"
        num_others = len({one.row_id for one in others} - {line.row_id})
        more = f" (and {count_text(num_others, 'other row')})" if num_others else ""
        stdout.say(f"{one_line(about)}  {one_line(line.message)}{more}")
    if line is None:
        whose = f"row {row_id}" if row_id else "any row"
        stderr.say(f"{found.url} has no log lines about {whose}: nothing went wrong so far")
