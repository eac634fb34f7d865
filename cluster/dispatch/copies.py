"""Which row under way an idle worker renders as well when no row waits. Pure, no clock.

Clips are named by their content and never replaced, so a copy does no harm: the first to finish counts, and
the other worker leaves the row at its next step. A copy is worth it where it is likely to end first: the row
waits behind others, or its worker is late with it. What is late is expected to be as late again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from framefleet.cluster.dispatch.lease import Entry, Paces, Seat

# Ranking all rows under way takes a millisecond with a thousand workers: not for each that is idle.
_RANK_EVERY_S = 1.0
# Rows that end sooner are not worth it: reports take a second, and rows of one worker share forwards.
_SHORTEST_S = 5.0


class Copies:
    """seats: of all workers, by name. paces: of rows, by shape."""

    def __init__(self, seats: Mapping[str, Seat], paces: Paces) -> None:
        self._seats, self._paces = seats, paces
        self._holders: dict[str, set[str]] = {}  # row_id: the workers that have it, of rows with a copy
        self._ranked: list[tuple[float, str, str]] = []  # (seconds left, worker, row_id), the longest last
        self._ranked_at = float("-inf")

    def take(self, worker: str, now: float) -> list[Entry]:
        """Return the row that this idle worker gets a copy of; [] where no copy pays."""
        if now - self._ranked_at >= _RANK_EVERY_S:
            self._ranked, self._ranked_at = sorted(self._worthwhile(now)), now
        while self._ranked:
            _, holder, row_id = self._ranked.pop()
            entry = self._seats[holder].rows.get(row_id) if holder in self._seats else None
            if entry is not None and row_id not in self._holders:
                self._holders[row_id] = {holder, worker}
                return [entry]
        return []

    def has(self, row_id: str) -> bool:
        """Whether any worker still has the row, of those that had it or a copy of it."""
        return row_id in self._holders

    def release(self, worker: str, row_id: str) -> None:
        """A worker has a row no more."""
        if holders := self._holders.get(row_id):
            holders.discard(worker)
            if not holders:
                del self._holders[row_id]

    def end(self, row_id: str) -> set[str]:
        """A row has ended, and no copy of it is needed: return who still has it."""
        return self._holders.pop(row_id, set())

    def _worthwhile(self, now: float) -> Iterator[tuple[float, str, str]]:
        """Yield rows that are likely to take longer where they are than elsewhere."""
        for worker, seat in self._seats.items():
            if seat.alone:
                continue
            first_s = 0.0
            for place, (row_id, entry) in enumerate(seat.rows.items()):
                row_s = self._paces.seconds_per_row(entry.row.shape)
                if row_s is None:
                    break
                batch_size = self._paces.batch_size(entry.row.shape)
                turn_s = row_s * batch_size  # rows that are rendered together end together
                first_s = first_s if place else abs(turn_s - (now - seat.last_end))
                left_s = first_s + place // batch_size * turn_s
                has_faults = entry.attempts or entry.strikes
                if left_s > max(turn_s, _SHORTEST_S) and not has_faults and row_id not in self._holders:
                    yield left_s, worker, row_id
