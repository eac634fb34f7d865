"""Which fresh row is next. Rows that came back from a worker go before these, in every order.

An order sees the rows that the driver has read ahead (`Dispatcher`'s window), not the whole table: the next
few thousand rows. With a short table, and at the end of a long one, these are all.

If no row waits, an idle worker also renders a row under way (`Copies`). Clips are named by their content and
never replaced, so a copy does no harm: the first to finish counts, and the other worker drops the row at its
next step. A copy is worth it if it is likely to end first: the row waits behind others, or its worker is late
with it. A row that is late is expected to take as long again.

Rows wait here, and leave in the order in which a given worker should get them.

Rows to be rendered *alone* leave one by one, for an empty worker that has what they need. *Returned* rows
(failed, put back, or their worker died) go before all fresh ones, *fresh* rows as a `Ranked` order decides,
and *doubtful* ones last: their machine may be why they failed.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import count, islice

from framefleet.cluster.dispatch.faults import SUSPECT_DEATHS
from framefleet.cluster.dispatch.lease import Entry, Need, Paces, Row, Seat, Whereabouts


class Ranked:
    """The highest `Row.rank` first; of equal ones, the oldest. Others of its shape share its lease.

    Only rows of one shape come out together, so that they can share forwards.
    """

    def __init__(self) -> None:
        self._by_shape: dict[str, list[tuple[float, int, Row]]] = {}  # heaps, the first row on top
        self._numbers = count()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, row: Row) -> None:
        """Take a row that was read from the table."""
        self._count += 1
        heapq.heappush(self._by_shape.setdefault(row.shape, []), (self._rank(row), next(self._numbers), row))

    def next_shape(self, rendering: str | None, patience: int) -> str | None:
        """Return the shape whose rows a worker gets next; None if there are no rows.

        rendering: the shape that the worker renders now. patience: how many leases in a row may pass over the
        first row.
        """
        return min(self._by_shape, key=self._place, default=None)

    def take(self, shape: str, limit: int) -> list[Row]:
        """Remove and return the next rows of this shape, at most `limit`; [] when there are none."""
        heap = self._by_shape.get(shape, [])
        taken = [heapq.heappop(heap)[2] for _ in range(min(max(limit, 0), len(heap)))]
        self._count -= len(taken)
        if not heap:
            self._by_shape.pop(shape, None)
        return taken

    def _rank(self, row: Row) -> float:
        return -row.rank

    def _place(self, shape: str) -> tuple[float, int]:
        """Return where the first row of a shape is in line, the lowest first."""
        return self._by_shape[shape][0][:2]


class TableOrder(Ranked):
    """In the order of the table, but a worker stays with its shape as long as `patience` allows."""

    def __init__(self) -> None:
        super().__init__()
        self._line = deque[Row]()  # oldest first, with some that were taken
        self._passed_over = 0  # leases in a row that left the oldest row where it is

    def add(self, row: Row) -> None:
        super().add(row)
        self._line.append(row)

    def next_shape(self, rendering: str | None, patience: int) -> str | None:
        may_stay = rendering in self._by_shape and self._passed_over < patience
        return rendering if may_stay else self._oldest_shape()

    def take(self, shape: str, limit: int) -> list[Row]:
        if limit > 0 and shape in self._by_shape:
            self._passed_over = 0 if shape == self._oldest_shape() else self._passed_over + 1
        return super().take(shape, limit)

    def _oldest_shape(self) -> str | None:
        """Return the shape of the oldest row, without looking through all: each row may have its own."""
        while self._line:
            heap = self._by_shape.get(self._line[0].shape)
            if heap and heap[0][2] is self._line[0]:
                return self._line[0].shape
            self._line.popleft()
        return None

    def _rank(self, row: Row) -> float:
        return 0.0


class Longest(Ranked):
    """The most seconds first: the work in a row (`Row.rank`) times what work takes in rows of its shape."""

    def __init__(self, paces: Paces) -> None:
        super().__init__()
        self._paces = paces

    def _place(self, shape: str) -> tuple[float, int]:
        rank, number = super()._place(shape)
        return rank * self._paces.seconds_per_rank(shape), number


# Ranking all rows under way takes a millisecond with a thousand workers: not for each that is idle.
_RANK_EVERY_S = 1.0
# Rows that end sooner are not worth it: reports take a second, and rows of one worker share forwards.
_SHORTEST_S = 5.0


class Copies:
    """Rows under way that idle workers render too. seats: of all workers, by name. paces: of rows."""

    def __init__(self, seats: Mapping[str, Seat], paces: Paces) -> None:
        self._seats, self._paces = seats, paces
        self._holders: dict[str, set[str]] = {}  # row_id: the workers that have it, of rows with a copy
        self._ranked: list[tuple[float, str, str]] = []  # (seconds left, worker, row_id), the longest last
        self._ranked_at = float("-inf")

    def take(self, worker: str, now: float) -> list[Entry]:
        """Return the row that this idle worker gets a copy of; [] if no copy is worth it."""
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
        """A worker no longer has a row."""
        if holders := self._holders.get(row_id):
            holders.discard(worker)
            if not holders:
                del self._holders[row_id]

    def end(self, row_id: str) -> set[str]:
        """A row has ended, and no copy of it is needed: return the workers that still have it."""
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


# Workers on equal cards differ by what libraries put there once they compute: kernels, handles.
SLACK_BYTES = 1 << 30


class Returned:
    """Rows that came back, first come, first served. Each waits for the live workers farthest from where it
    failed: those on other machines, or else those with other names.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}  # by row_id

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, entry: Entry, *, is_next: bool = False) -> None:
        self._entries[entry.row.row_id] = entry
        if is_next:
            self._entries = {entry.row.row_id: entry} | self._entries

    def remove(self, is_wanted: Callable[[Entry], bool]) -> list[Entry]:
        removed = [entry for entry in self._entries.values() if is_wanted(entry)]
        return [self._entries.pop(entry.row.row_id) for entry in removed]

    def shape_for(self, worker: str, live: Mapping[str, Whereabouts]) -> str | None:
        """Return the shape of the row that is next for this worker, None when there is no row for it."""
        entry = self._next_for(worker, live)
        return entry.row.shape if entry else None

    def take(self, worker: str, live: Mapping[str, Whereabouts], *, limit: int) -> list[Entry]:
        """Remove the next row for this worker, and others of its shape that failed in the same places."""
        if (first := self._next_for(worker, live)) is None:
            return []
        tried, shape = first.tried, first.row.shape
        entries = self._entries.values()
        alike = (entry for entry in entries if entry.tried == tried and entry.row.shape == shape)
        return [self._entries.pop(entry.row.row_id) for entry in list(islice(alike, max(limit, 1)))]

    def _next_for(self, worker: str, live: Mapping[str, Whereabouts]) -> Entry | None:
        not_for_it = set[frozenset[str]]()  # places, each looked at once: a worker may fail everything
        for entry in self._entries.values():
            if entry.tried not in not_for_it:
                own = _distance(live[worker], entry.tried)
                is_farthest = all(_distance(other, entry.tried) <= own for other in live.values())
                if own == len(live[worker]) or is_farthest:
                    return entry
                not_for_it.add(entry.tried)
        return None


def _distance(places: Whereabouts, tried: frozenset[str]) -> int:
    return sum(place not in tried for place in places)


class Waiting:
    def __init__(self, order: Ranked) -> None:
        self.fresh = order
        self.returned = Returned()
        self.doubtful = Returned()  # rows that failed, maybe because of their machine
        self.alone: dict[Need, Returned] = {"new": Returned(), "room": Returned(), "proven": Returned()}

    def __len__(self) -> int:
        return len(self.fresh) + sum(map(len, (self.returned, self.doubtful, *self.alone.values())))

    def put_back(self, entry: Entry, *, is_next: bool = False, is_doubtful: bool = False) -> None:
        """is_next: before others that wait for the same. is_doubtful: after all others."""
        if entry.need is None and entry.strikes >= SUSPECT_DEATHS:
            entry.need = "proven"
        line = self.doubtful if is_doubtful else self.alone[entry.need] if entry.need else self.returned
        line.append(entry, is_next=is_next)

    def take(
        self,
        worker: str,
        live: Mapping[str, Whereabouts],
        *,
        rendering: str | None,
        patience: int,
        size: Callable[[str], int],
    ) -> list[Entry]:
        """Remove and return rows of one shape for this worker, at most `size(shape)`; none from `alone`.

        rendering: the shape the worker is at. patience: see `Ranked.next_shape`.
        """
        shape = self.returned.shape_for(worker, live)
        if shape is None and (shape := self.fresh.next_shape(rendering, patience)) is None:
            return []
        limit = size(shape)
        entries = self.returned.take(worker, live, limit=limit)
        return entries + [Entry(row) for row in self.fresh.take(shape, limit - len(entries))]
