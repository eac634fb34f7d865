"""JSON: what anybody wrote to plain values, every kind of damage a ValueError; and values to one spelling."""

from __future__ import annotations

import json
from typing import Any

# Configs nest some six deep. Past a thousand Python's own parser gives up, and well before that what walks or
# writes such a value.
MAX_DEPTH = 64

CANONICAL: dict[str, Any] = {
    "sort_keys": True,
    "separators": (",", ":"),
    "ensure_ascii": False,
    "allow_nan": False,
}
_ENCODER = json.JSONEncoder(**CANONICAL)


def parse_json(text: str | bytes) -> Any:
    """Return the value. Raises ValueError for what is not JSON, or nests deeper than `MAX_DEPTH`."""
    too_deep = f"it nests more than {MAX_DEPTH} levels deep"
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(too_deep) from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError(too_deep)


def canonical_json(value: Any) -> str:
    """Return the one spelling of `value`: sorted keys, no spaces, text as it is, floats as Python's repr.

    5 and 5.0 are spelled apart: the checks of a row turn numbers into the kind of their parameter before.
    """
    return _ENCODER.encode(value)


def _inside(value: Any) -> list[Any]:
    """Return the mappings and lists that stand directly in a value."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return []
    return [inner for inner in value if isinstance(inner, dict | list)]
