"""A value that cannot be rendered, and how values are shown. Imports nothing: sandboxes say it too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_MAX_SHOWN, _BITS = 80, 256  # characters of a value in a message; 78 digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why a value cannot be rendered, as the end of "height is 100, but ...", and what to do."""

    reason: str
    fix: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One value of a row that is refused. column: as the table names it, or `defaults.` and the argument."""

    column: str
    value: Any
    why: Refused

    def __str__(self) -> str:
        value = f"is {shown(self.value)}" if self.value is not None else "is empty"
        return f"{self.column} {value}, but {self.why.reason}"


def shown(value: Any) -> str:
    """Return a value as messages show it: cells may be pages, and Python spells no numbers of pages."""
    if isinstance(value, int) and value.bit_length() > _BITS:
        return f"a whole number of {value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."
