"""Rows wait here, and leave in the order in which a given worker should get them.

Three lines. *Suspects* leave one by one, for a worker that is empty. *Returned* rows (failed, put back, or
their worker died) go before all fresh ones. *Fresh* rows go as a `Ranked` order decides. Rows that ran out of
memory wait elsewhere, in `OversizedRows`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

from framefleet.cluster.dispatch.fault_policy import SUSPECT_DEATHS
from framefleet.cluster.dispatch.lease import MAX_PACES, Entry, Whereabouts
from framefleet.cluster.dispatch.order import Ranked

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
        """Tell whether a row that failed would fail everywhere. is_new: it had a new process for itself."""
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
