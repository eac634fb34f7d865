"""From one cell or default that should be a list to the list that the pipeline is given, or to why not."""

from __future__ import annotations

from typing import Any

from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.model.specs.bounds import MAX_LIST
from framefleet.pipeline.model.specs.check import coerce
from framefleet.pipeline.model.specs.ranges import out_of_range
from framefleet.pipeline.model.specs.refusal import Refused, shown
from framefleet.pipeline.model.specs.signature import PART_KINDS, ListKind, Scalar, ScalarKind

_WORDS: dict[ScalarKind, str] = {"int": "whole numbers", "float": "numbers", "str": "texts"}
_EXAMPLES: dict[ScalarKind, str] = {
    "int": "[999, 749, 499]",
    "float": "[1.0, 0.75, 0.5]",
    "str": '["a", "b"]',
}


def check_list(
    name: str, cell: Any, kind: ListKind, entries: int | None = None
) -> list[Scalar] | tuple[Scalar, ...] | Refused:
    """Return a new list of what the parameter `name` takes. A cell is a list, or JSON text of one (CSV).

    entries: see `Parameter`; a tuple where it is one.
    """
    part = PART_KINDS[kind]
    what, example = f"a list of {_WORDS[part]}", _EXAMPLES[part]
    if entries:
        what, example = f"a list of {entries} {_WORDS[part]}", str([*(480, 832, 16, 0)[:entries]])
    wanted = Refused(reason=f"it must be {what}", fix=f"use one, as {example}")
    parts = parsed_list(cell)
    if not isinstance(parts, list) or not parts or (entries and len(parts) != entries):
        return wanted
    if len(parts) > MAX_LIST:
        return Refused(reason=f"no list has more than {MAX_LIST:,} entries", fix="shorten it")
    found: list[Scalar] = []
    for position, value in enumerate(parts):
        checked = coerce(value, part)
        if isinstance(checked, Refused):
            return Refused(reason=f"its entry {position} is {shown(value)}: {checked.reason}", fix=wanted.fix)
        if not isinstance(checked, str) and (words := out_of_range(name, checked)):
            return Refused(reason=f"its entry {position}, {shown(value)}, must be {words}", fix=wanted.fix)
        found.append(checked)
    return found if entries is None else tuple(found)


def parsed_list(cell: Any) -> Any:
    """Return the list that a cell is, or has as JSON text; anything else for what is none."""
    if not isinstance(cell, str):
        return list(cell) if isinstance(cell, tuple) else cell
    try:
        return parse_json(cell)
    except ValueError:
        return None
