"""Several checks of one job in; one error that reports all that failed out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from framefleet.pipeline.errors import UserError

_AGAIN = "correct these, then run the same command again"


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
