"""What the environment of a record says below `audit`: how far its row is known to be right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.outputs.parts.records import Record, told_arguments
from framefleet.pipeline.render.audit.verdict import kind_of
from framefleet.pipeline.request import Request

AUDIT = "audit"
EQUAL = "compared with a plain call, and equal"
ALONE = "rendered alone, not batched"
PLAINLY = "rendered by a plain call"
DIFFERED = "when batched, such rows differed from plain calls"
PLAIN_CALL = f"{PLAINLY}: {DIFFERED}"
UNREPEATABLE = "two plain calls of such a row differed"


def apart(why: str) -> str:
    """Return what is said of a row of a kind that is not batched."""
    return f"{PLAINLY}: {why}"


def batched(num_equal: int) -> str:
    """Return what is said of a row that was not compared itself. num_equal: audits of its kind so far."""
    return f"batched, not compared; audits of its kind that were equal by then: {num_equal}"


def remark_of(environment: str) -> str | None:
    """Return what is said in the environment of a record; None where nothing is: it may be anybody's."""
    try:
        told = parse_json(environment)
    except ValueError:
        return None
    remark = told.get(AUDIT) if isinstance(told, dict) else None
    return remark if isinstance(remark, str) else None


def with_remark(record: Record, remark: str) -> Record:
    """Return the record of a clip that was made here with this in its environment."""
    environment = parse_json(record.environment) | {AUDIT: remark}
    return replace(record, environment=json.dumps(environment, sort_keys=True))


def is_doubtful(environment: str) -> bool:
    """Tell whether the row of a record is wrong if rows of its kind are: it was batched, as far as known."""
    remark = remark_of(environment) or ""
    return not remark.startswith((EQUAL, ALONE, PLAINLY))


def kind_of_record(record: Mapping[str, Any]) -> str:
    """Return the kind of a record's row. record: its recipe and arguments."""
    return kind_of(Request(arguments=told_arguments(record), recipe=record["recipe"]))
