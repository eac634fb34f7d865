"""Rows that have come to a worker, in their order; each waits until what it needs of stores is here.

So a store that does not answer holds up the rows that need it, and no others. Locks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice

from framefleet.cluster.worker.messages import Assignment


@dataclass(slots=True, eq=False)
class Arrived:
    """inputs: what is read for it. checkpoint: the same of its half-done state, once its turn comes."""

    assignment: Assignment
    inputs: list[Future[bytes]]
    checkpoint: Future[bytes | None] | None = None

    @property
    def wants_checkpoint(self) -> bool:
        """Rows apart begin again: half of one would be of another way to render."""
        return self.assignment.has_checkpoint and not self.assignment.is_apart

    @property
    def is_ready(self) -> bool:
        """Whether all was read; what could not be is the row's own failure, when it starts."""
        if self.wants_checkpoint and not (self.checkpoint and self.checkpoint.done()):
            return False
        return all(read.done() for read in self.inputs)


class Inbox:
    """fetch: begins to read a row's checkpoint. notify: is called, in any thread, when something was read."""

    def __init__(self, fetch: Callable[[str], Future[bytes | None]], notify: Callable[[], None]) -> None:
        self._fetch, self._notify = fetch, notify
        self._rows: list[Arrived] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, assignment: Assignment, inputs: list[Future[bytes]]) -> None:
        self._rows.append(Arrived(assignment, inputs))
        for read in inputs:
            read.add_done_callback(lambda _: self._notify())

    def take(self, room: int) -> list[Arrived]:
        room = max(room, 0)
        for row in islice(self._rows, room):  # no more at once: a checkpoint may have a gigabyte
            if row.wants_checkpoint and row.checkpoint is None:
                row.checkpoint = self._fetch(row.assignment.row_id)
                row.checkpoint.add_done_callback(lambda _: self._notify())
        ready = [row for row in self._rows if row.is_ready][:room]
        self._rows = [row for row in self._rows if row not in ready]
        return ready

    def drop(self, row_ids: Collection[str]) -> None:
        self._rows = [row for row in self._rows if row.assignment.row_id not in row_ids]

    def take_all(self) -> list[Assignment]:
        """Return the rows that have not started, and hold none."""
        left, self._rows = self._rows, []
        return [row.assignment for row in left]
