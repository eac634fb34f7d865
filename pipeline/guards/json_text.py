"""JSON: what anybody wrote to plain values, every kind of damage a ValueError; and values to one spelling.

`JsonForm` spells values that differ in a few places: written once, and filled in for each of them.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any

# Configs nest some six deep. Past a thousand Python's own parser gives up, and well before that what walks or
# writes such a value.
MAX_DEPTH = 64
EXACT_FLOATS = 2**53  # from here on floating-point numbers do not hold every whole one

CANONICAL: dict[str, Any] = dict(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_ENCODER = json.JSONEncoder(**CANONICAL)
# Where a blank stands in the text, until that is cut there. No table can hold it: each process has its own.
_MARK = secrets.token_hex(16)
_BLANK = re.compile(f'"{_MARK}:([0-9]+)"')


def parse_json(text: str | bytes, decoder: json.JSONDecoder | None = None) -> Any:
    """Return the value. Raises ValueError for what is not JSON, or nests deeper than `MAX_DEPTH`.

    decoder: makes the values; of text.
    """
    too_deep = f"it nests more than {MAX_DEPTH} levels deep"
    try:
        value = decoder.decode(text) if decoder else json.loads(text)  # type: ignore[arg-type]
    except RecursionError:
        raise ValueError(too_deep) from None
    level: list[Any] = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        inside = (outer.values() if isinstance(outer, dict) else outer for outer in level)
        level = [inner for values in inside for inner in values if isinstance(inner, dict | list)]
        if not level:
            return value
    raise ValueError(too_deep)


def canonical_json(value: Any) -> str:
    """Return the one spelling of `value`: sorted keys, no spaces, text as it is, floats as Python's repr.

    5 and 5.0 are spelled apart: the checks of a row turn numbers into the kind of their parameter before.
    """
    return _ENCODER.encode(value)


@dataclass(frozen=True, slots=True)
class Blank:
    """Stands in a value where each of many has text or a whole number of its own. number: which of those."""

    number: int


class JsonForm:
    """What `canonical_json` spells, for all values that differ from `value` in its blanks."""

    def __init__(self, value: Any) -> None:
        cut = _BLANK.split(_FORM_ENCODER.encode(value))
        self._parts: list[str] = cut
        self._blanks = [(place, int(cut[place])) for place in range(1, len(cut), 2)]

    def __len__(self) -> int:
        """Characters, without those of the blanks."""
        return sum(map(len, self._parts))

    def filled(self, spelled: Sequence[str]) -> str:
        """Return the JSON with `spelled[number]` in place of each blank; see `spell`."""
        parts = self._parts.copy()
        for place, number in self._blanks:
            parts[place] = spelled[number]
        return "".join(parts)


def spell(value: Any) -> str:
    """Return text as `canonical_json` has it; nothing for all else, which fills no blank."""
    return encode_basestring(value) if isinstance(value, str) else ""


def _marked(value: Any) -> str:
    if isinstance(value, Blank):
        return f"{_MARK}:{value.number}"
    raise TypeError(f"{type(value).__name__} is not JSON")


_FORM_ENCODER = json.JSONEncoder(**CANONICAL, default=_marked)
