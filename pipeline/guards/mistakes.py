"""Checks of what people give: the type of one argument; several checks of a job in one error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from framefleet.pipeline.errors import JobError, UserError

_AGAIN = "correct these, then run the same command again"
Expected = TypeVar("Expected")
_MOST = 80  # characters


class Mistakes:
    """Notes what checks refuse, so that those after them are made too."""

    def __init__(self) -> None:
        self.found: list[UserError] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note a UserError of the block instead of raising it."""
        try:
            yield
        except UserError as error:
            self.found.append(error)

    def report(self) -> None:
        """Raise what was noted: one error as it is, several as one of the first's class."""
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            fixes = [f" ({error.fix})" if error.fix not in ("", _AGAIN) else "" for error in self.found]
            lines = [error.problem + fix for error, fix in zip(self.found, fixes, strict=True)]
            raise type(self.found[0])("\n".join(lines), _AGAIN)


def expected(value: Any, kind: type[Expected], name: str, fix: str) -> Expected:
    """Return the value. Raises JobError, which says what was passed as `name`, for one of another kind."""
    if isinstance(value, kind):
        return value
    text = repr(value)
    text = text if len(text) <= _MOST else f"{text[:_MOST]}..."
    raise JobError(f"{name} is {text}, of type {type(value).__name__}", fix)
