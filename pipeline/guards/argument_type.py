"""In: a value that a Python caller gave. Out: the same, if it is of the kind that is taken."""

from __future__ import annotations

from typing import Any, TypeVar

from framefleet.pipeline.errors import JobError

Expected = TypeVar("Expected")
_MOST = 80  # characters


def expected(value: Any, kind: type[Expected], name: str, fix: str) -> Expected:
    """Return the value. Raises JobError, which says what was passed as `name`, for one of another kind."""
    if isinstance(value, kind):
        return value
    text = repr(value)
    text = text if len(text) <= _MOST else f"{text[:_MOST]}..."
    raise JobError(f"{name} is {text}, of type {type(value).__name__}", fix)
