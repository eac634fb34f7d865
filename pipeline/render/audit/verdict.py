"""What an audit found, for the log and for records: how far a row is known to be right.

Plain values, which are pickled between machines.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from framefleet.pipeline.guards.json_text import parse_json, parse_object
from framefleet.pipeline.outputs.parts.records import Record, told_arguments
from framefleet.pipeline.request import Request, models_in
from framefleet.pipeline.rows.identity import lane_named
from framefleet.pipeline.rows.tables.rows import shape_of

# unrepeatable: two plain calls of the row differ, so that none can say what it should be.
Verdict = Literal["equal", "differs", "unrepeatable"]
Digests = tuple[str | bytes | None, ...]  # of frames, sound and what else a row rendered

_TOLD: dict[Verdict, str] = {
    "equal": "row {row_id} of {kind} equals its plain call; {seconds:.1f} s",
    "differs": "rows of {kind} differ if they are not rendered by plain calls, as row {row_id} shows: "
    "from now on each is",
    "unrepeatable": "rows of {kind} cannot be repeated: two plain calls of row {row_id} differ",
}
AUDIT = "audit"
EQUAL = "compared with a plain call, and equal"
# Of a user's recipe, which may have changed what both were made of.
EQUAL_HERE = "equal to a plain call of the same process, which proves nothing about other processes"
EQUALS = (EQUAL, EQUAL_HERE)
PLAINLY = "rendered by a plain call"
DIFFERED = "such a row was not, and an audit found that it differs"
NOT_COMPARED = "not a plain call, not compared"
UNREPEATABLE = "two plain calls of such a row differed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What became of one audit. seconds: that it took. batch_size: of the row, mean over its forwards."""

    kind: str
    row_id: str
    verdict: Verdict
    seconds: float
    batch_size: float = 1.0


def kind_of(request: Request) -> str:
    """Return what rows share that an audit speaks for: model of several, recipe, second models, shape."""
    models = models_in(request.arguments)
    return " ".join([request.model, request.recipe, *models, shape_of(request.arguments)]).strip()


def verdict_of(clip: Digests, first: Digests | None, second: Digests | None) -> Verdict:
    """Return what digests say: of a clip, and of two plain calls, None where one failed."""
    if first == clip:
        return "equal"
    return "differs" if first == second else "unrepeatable"


def verdict_text(audited: Audited) -> str:
    return _TOLD[audited.verdict].format(kind=audited.kind, row_id=audited.row_id, seconds=audited.seconds)


def level_of(audited: Audited) -> int:
    return logging.INFO if audited.verdict == "equal" else logging.WARNING


def apart(why: str) -> str:
    """Return the remark on a row whose kind is rendered by plain calls."""
    return f"{PLAINLY}: {why}"


def not_compared(num_equal: int, *, recipe: str = "") -> str:
    """Return the remark on a row that was not compared itself. num_equal: audits of its kind so far."""
    is_lane = bool(lane_named("", recipe).recipe)
    how = "in one process with other rows of its recipe, not compared" if is_lane else NOT_COMPARED
    return f"{how}; audits of its kind that were equal by then: {num_equal}"


def remark_of(environment: str) -> str | None:
    """Return the remark in a record's environment, which may be anybody's text; None: there is none."""
    remark = parse_object(environment).get(AUDIT)
    return remark if isinstance(remark, str) else None


def with_remark(record: Record, remark: str) -> Record:
    """Return the record of a clip that was made here with this in its environment."""
    environment = parse_json(record.environment) | {AUDIT: remark}
    return replace(record, environment=json.dumps(environment, sort_keys=True))


def is_doubtful(environment: str) -> bool:
    """Tell whether a record's row may be wrong if others of its kind are: maybe no plain call made it."""
    remark = remark_of(environment) or ""
    return not remark.startswith((*EQUALS, PLAINLY))


def kind_of_record(record: Mapping[str, Any]) -> str:
    """Return the kind of a record's row. record: its recipe, arguments and, of several models, model_name."""
    model = record.get("model_name") or ""
    return kind_of(Request(arguments=told_arguments(record), recipe=record["recipe"], model=model))
