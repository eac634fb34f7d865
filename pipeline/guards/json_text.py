"""Parse JSON of strangers, with ValueError for every kind of damage; and write values in one spelling.

`JsonForm` writes many values that differ in a few places only: the rest is encoded once.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any

# Configs nest about six levels deep. Python's parser gives up after a thousand, and code that walks or writes
# such a value well before that.
MAX_DEPTH = 64
EXACT_FLOATS = 2**53  # from here on, floats cannot represent every whole number

CANONICAL: dict[str, Any] = dict(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_ENCODER = json.JSONEncoder(**CANONICAL)
# Marks a blank in the text, which is then cut there. Random, so that no table contains it.
_MARK = secrets.token_hex(16)
_BLANK = re.compile(f'"{_MARK}:([0-9]+)"')


def parse_json(text: str | bytes, decoder: json.JSONDecoder | None = None) -> Any:
    """Return the value. Raises ValueError if it is not JSON, or nests deeper than `MAX_DEPTH`.

    decoder: used in place of `json.loads`; takes text only.
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


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return an object in JSON; {} where the text is something else."""
    try:
        value = parse_json(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def canonical_json(value: Any) -> str:
    """Return the one spelling of `value`: sorted keys, no spaces, text unescaped, floats as Python's repr.

    5 and 5.0 are spelled differently: a row's checks convert numbers to the type of their parameter first.
    """
    return _ENCODER.encode(value)


@dataclass(frozen=True, slots=True)
class Blank:
    """A place in a value of `JsonForm` that is filled in later. number: the place in `spelled`."""

    number: int


class JsonForm:
    """Writes as `canonical_json` does all values that differ from `value` only in its blanks."""

    def __init__(self, value: Any) -> None:
        cut = _BLANK.split(_FORM_ENCODER.encode(value))
        self._parts: list[str] = cut
        self._blanks = [(place, int(cut[place])) for place in range(1, len(cut), 2)]

    def __len__(self) -> int:
        """Return the number of characters outside of blanks."""
        return sum(map(len, self._parts))

    def filled(self, spelled: Sequence[str]) -> str:
        """Return the JSON with `spelled[number]` in place of each blank; see `spell`."""
        parts = self._parts.copy()
        for place, number in self._blanks:
            parts[place] = spelled[number]
        return "".join(parts)


def spell(value: Any) -> str:
    """Return text as `canonical_json` writes it; "" for other values, which fill no blank."""
    return encode_basestring(value) if isinstance(value, str) else ""


def _marked(value: Any) -> str:
    if isinstance(value, Blank):
        return f"{_MARK}:{value.number}"
    raise TypeError(f"{type(value).__name__} is not JSON")


_FORM_ENCODER = json.JSONEncoder(**CANONICAL, default=_marked)
