"""Several checks of one job in; one error that reports all that failed out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from framefleet.pipeline.errors import UserError


class Mistakes:
    """Notes what checks refuse, so that those after them are made too."""

    def __init__(self) -> None:
        self._found: list[UserError] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note a UserError of the block instead of raising it."""
        try:
            yield
        except UserError as error:
            self._found.append(error)

    def report(self) -> None:
        """Raise what was noted: one error as it is, several as one of the first's class."""
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            lines = [
                f"{error.problem} ({error.fix})" if error.fix else error.problem for error in self._found
            ]
            raise type(self._found[0])("\n".join(lines), "correct these, then run the same command again")
