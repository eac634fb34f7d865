"""Which fresh row is next. Rows that came back from a worker go before all of these, in every order.

An order sees the rows that the driver has read ahead (`Dispatcher`'s window), not the whole table: the next
few thousand rows. With a short table, and at the end of a long one, these are all.

Where no row waits, an idle worker renders a row under way as well (`Copies`). Clips are named by their
content and never replaced, so a copy does no harm: the first to finish counts, and the other worker leaves
the row at its next step. A copy is worth it where it is likely to end first: the row waits behind others, or
its worker is late with it. What is late is expected to be as late again.

Rows wait here, and leave in the order in which a given worker should get them.

Three lines. *Suspects* leave one by one, for a worker that is empty. *Returned* rows (failed, put back, or
their worker died) go before all fresh ones. *Fresh* rows go as a `Ranked` order decides. Rows that ran out of
memory wait elsewhere, in `OversizedRows`.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from itertools import count

from framefleet.cluster.dispatch.faults import SUSPECT_DEATHS
from framefleet.cluster.dispatch.lease import MAX_PACES, Entry, Paces, Row, Seat, Whereabouts


class Ranked:
    """The highest `Row.rank` first, of equal ones the oldest. Others of its shape share its lease.

    Rows of one shape come out at a time: they can share forwards.
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
    """As in the table, but a worker stays with the shape that it renders as long as `patience` allows."""

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


# Workers on equal cards differ by what libraries put there once they compute: kernels, handles.
SLACK_BYTES = 1 << 30
# A worker that is replaced is back by then (`fleet.ready_timeout_s`). If not, any with as much will do.
NEW_PROCESS_S = 600.0


class Returned:
    """Rows that came back, first come first served, each for the live workers farthest from where it failed:
    on other machines, or else of other names.

    Grouped by those places, so that a worker that fails everything skips its failures in one step.
    """

    def __init__(self) -> None:
        self._groups: OrderedDict[frozenset[str], deque[Entry]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, entry: Entry, *, is_next: bool = False) -> None:
        group = self._groups.setdefault(entry.tried, deque())
        if is_next:
            group.appendleft(entry)
            self._groups.move_to_end(entry.tried, last=False)
        else:
            group.append(entry)
        self._count += 1

    def remove(self, is_wanted: Callable[[Entry], bool]) -> list[Entry]:
        removed = [entry for group in self._groups.values() for entry in group if is_wanted(entry)]
        for entry in removed:
            self._groups[entry.tried].remove(entry)
            if not self._groups[entry.tried]:
                del self._groups[entry.tried]
        self._count -= len(removed)
        return removed

    def shape_for(self, worker: str, live: Mapping[str, Whereabouts]) -> str | None:
        """Return the shape of the row that is next for this worker, None when there is no row for it."""
        tried = self._group_for(worker, live)
        return None if tried is None else self._groups[tried][0].row.shape

    def take(self, worker: str, live: Mapping[str, Whereabouts], *, limit: int) -> list[Entry]:
        """Remove the next row for this worker and those of its shape right behind it."""
        tried = self._group_for(worker, live)
        if tried is None:
            return []
        group = self._groups[tried]
        taken = [group.popleft()]
        while group and len(taken) < limit and group[0].row.shape == taken[0].row.shape:
            taken.append(group.popleft())
        self._count -= len(taken)
        if group:
            self._groups.move_to_end(tried)  # the groups take turns
        else:
            del self._groups[tried]
        return taken

    def _group_for(self, worker: str, live: Mapping[str, Whereabouts]) -> frozenset[str] | None:
        for tried in self._groups:
            own = _distance(live[worker], tried)
            if own == len(live[worker]) or all(_distance(other, tried) <= own for other in live.values()):
                return tried
        return None


def _distance(places: Whereabouts, tried: frozenset[str]) -> int:
    return sum(place not in tried for place in places)


class Waiting:
    def __init__(self, order: Ranked) -> None:
        self.fresh = order
        self.suspects = Returned()
        self.returned = Returned()

    def __len__(self) -> int:
        return len(self.fresh) + len(self.returned) + len(self.suspects)

    def put_back(self, entry: Entry, *, is_next: bool = False) -> None:
        """is_next: of the suspects, if it is one."""
        line = self.suspects if entry.strikes >= SUSPECT_DEATHS else self.returned
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
        """Remove and return rows of one shape for this worker, at most `size(shape)`; no suspects.

        rendering: the shape the worker is at. patience: see `Ranked.next_shape`.
        """
        shape = self.returned.shape_for(worker, live)
        if shape is None and (shape := self.fresh.next_shape(rendering, patience)) is None:
            return []
        limit = size(shape)
        entries = self.returned.take(worker, live, limit=limit)
        return entries + [Entry(row) for row in self.fresh.take(shape, limit - len(entries))]


class OversizedRows:
    """Rows that ran out of memory on their own, and which worker tries each of them next.

    The place is blamed first. Such a row goes to a worker with more memory than it has had. Where none has
    more, it goes to a new process with as much as any, where nothing else runs. If it fails there too, it is
    given up. From then on, rows of its shape that fail in as much memory are given up at once.

    room, largest: bytes that a worker has for a row, and the best one. is_new: it has had no row.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[Entry, int, float]] = []  # and the most bytes that each had, and since when
        self._too_large: dict[str, int] = {}  # by shape: the bytes in which a row failed in a new process

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, entry: Entry, *, room: int, now: float) -> None:
        self._rows.append((entry, room, now))

    def is_final(self, shape: str, *, room: int, largest: int, is_new: bool) -> bool:
        """Return whether a row that failed would fail everywhere. is_new: it had a new process for itself."""
        if room + SLACK_BYTES < largest:
            return False
        if is_new and len(self._too_large) < MAX_PACES:
            self._too_large[shape] = room
        return is_new or self._too_large.get(shape, -SLACK_BYTES - 1) + SLACK_BYTES >= largest

    def fits(self, shape: str) -> None:
        self._too_large.pop(shape, None)

    def take(self, *, room: int, largest: int, is_new: bool, now: float) -> Entry | None:
        """Remove and return a row for a worker, if there is one."""
        for place, (entry, had, since) in enumerate(self._rows):
            # One of a shape that failed in a new process meanwhile needs none: its next failure is the last.
            may_wait = entry.row.shape not in self._too_large and now - since <= NEW_PROCESS_S
            waits = not is_new and may_wait
            if room > had + SLACK_BYTES or (room + SLACK_BYTES >= largest and not waits):
                del self._rows[place]
                return entry
        return None
