"""Canonical JSON of values that differ in a few places: written once, and filled in for each of them."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any

from framefleet.pipeline.guards.json_text import CANONICAL

# Where a blank stands in the text, until that is cut there. No table can hold it: each process has its own.
_MARK = secrets.token_hex(16)
_BLANK = re.compile(f'"{_MARK}:([0-9]+)"')


@dataclass(frozen=True, slots=True)
class Blank:
    """Stands in a value where each of many has text or a whole number of its own. number: which of those."""

    number: int


class JsonForm:
    """What `canonical_json` spells, for all values that differ from `value` in its blanks."""

    def __init__(self, value: Any) -> None:
        cut = _BLANK.split(_ENCODER.encode(value))
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


_ENCODER = json.JSONEncoder(**CANONICAL, default=_marked)
