"""From values that a file says, which may be anybody's, to cells of a row within bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from framefleet.api.errors import shown
from framefleet.api.texts import canonical_json, parse_json

Cell = str | int | float | bool | None
_MAX_TEXT = 65_536  # bytes of a prompt, as of a cell
_MAX_FIELDS = 100  # of a file
# Whole numbers, and what they may be.
_BOUNDS = {
    "seed": (0, 2**63 - 1),
    "height": (1, 16_384),
    "width": (1, 16_384),
    "num_inference_steps": (1, 10_000),
}
_MAX_GUIDANCE = 1000.0
USUAL = (*_BOUNDS, "guidance_scale")  # what most files say besides prompts
_WHOLE, _NUMBER = re.compile(r"[+-]?[0-9]{1,20}"), re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?")


class Unreadable(Exception):
    """A file does not say how it was made, or nothing that can be rendered; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How a file was made, as it says."""

    program: str
    cells: Mapping[str, Cell]  # by argument; without what cannot be told
    others: Mapping[str, Any] = field(default_factory=dict)  # JSON, which is carried along


def told(program: str, values: Mapping[str, object], others: Mapping[str, Any] | None = None) -> Told:
    """Return checked cells; None is left out. Raises Unreadable for a value that no row can have."""
    cells = {name: _cell(name, value) for name, value in values.items() if value is not None}
    if "prompt" not in cells:
        raise Unreadable(f"its {program} metadata has no prompt")
    others = others or {}
    if len(cells) + len(others) > _MAX_FIELDS:
        raise Unreadable(f"its {program} metadata has more than {_MAX_FIELDS} fields")
    try:
        text = canonical_json(others).encode("utf-8", "replace")  # half a character is no text of a table
    except ValueError:
        raise Unreadable(f"its {program} metadata has a number that is none") from None
    if len(text) > _MAX_TEXT:
        raise Unreadable(f"its {program} metadata has more than {_MAX_TEXT:,} bytes besides prompts")
    return Told(program=program, cells=cells, others=parse_json(text))


def _cell(name: str, value: object) -> Cell:
    if name in _BOUNDS:
        low, high = _BOUNDS[name]
        if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise Unreadable(f"its {name} is {shown(value)}")
    elif name == "guidance_scale" and not (isinstance(value, str) and value.endswith(")")):  # a schedule
        if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            value = float(value)
        if type(value) not in (int, float) or not 0 <= value <= _MAX_GUIDANCE:  # type: ignore[operator]
            raise Unreadable(f"its {name} is {shown(value)}")
        value = float(value)  # type: ignore[arg-type]
    elif isinstance(value, str):
        if len(value.encode("utf-8", "replace")) > _MAX_TEXT:
            raise Unreadable(f"its {name} is longer than {_MAX_TEXT:,} bytes")
        value = value.replace("\0", "").encode("utf-8", "replace").decode()
    elif not isinstance(value, int | float) or not abs(value) < 2**63:  # nor NaN
        raise Unreadable(f"its {name} is {shown(value)}")
    return value
