"""Check untrusted values from a file, and return them as cells of a row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from framefleet.api.errors import shown
from framefleet.api.texts import canonical_json, parse_json

Cell = str | int | float | bool | None
_MAX_TEXT = 65_536  # bytes of a prompt, as for a cell
_MAX_FIELDS = 100  # per file
_MAX_OTHER_SEED = 2**64 - 1  # of ComfyUI
# Whole numbers and their ranges.
_BOUNDS = {
    "seed": (0, 2**63 - 1),
    "height": (1, 16_384),
    "width": (1, 16_384),
    "num_inference_steps": (1, 10_000),
}
_MAX_GUIDANCE = 1000.0
USUAL = (*_BOUNDS, "guidance_scale")  # found in most files, besides prompts
_WHOLE, _NUMBER = re.compile(r"[+-]?[0-9]{1,20}"), re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?")


class Unreadable(Exception):
    """A file has no settings, or none that can be rendered; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The settings in a file's metadata."""

    program: str
    cells: Mapping[str, Cell]  # by argument; without ambiguous ones
    others: Mapping[str, Any] = field(default_factory=dict)  # JSON values to carry along


def told(program: str, values: Mapping[str, object], others: Mapping[str, Any] | None = None) -> Told:
    """Return checked cells, without None. Raises Unreadable for an invalid value."""
    checked = ((name, _cell(name, value)) for name, value in values.items() if value is not None)
    cells = {name: cell for name, cell in checked if cell is not None}
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
    """Return the value of a cell; None for a seed of other programs that no row can have."""
    if name in _BOUNDS:
        low, high = _BOUNDS[name]
        if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if name == "seed" and type(value) is int and high < value <= _MAX_OTHER_SEED:
            return None
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
