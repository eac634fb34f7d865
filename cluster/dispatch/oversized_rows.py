"""Rows that ran out of memory on their own, and which worker tries each of them next. Pure, no clock.

The place is blamed first. Such a row goes to a worker with more memory than it has had. Where none has more,
it goes to a new process with as much as any, where nothing else runs. If it fails there too, it is given up.
From then on, rows of its shape that fail in as much memory are given up at once.
"""

from __future__ import annotations

from framefleet.cluster.dispatch.lease import MAX_PACES, Entry

# Workers on equal cards differ by what libraries put there once they compute: kernels, handles.
SLACK_BYTES = 1 << 30
# A worker that is replaced is back by then (`fleet.ready_timeout_s`). If not, any with as much will do.
NEW_PROCESS_S = 600.0


class OversizedRows:
    """room, largest: bytes that a worker has for a row, and the best one. is_new: it has had no row."""

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
        """A row of this shape is done."""
        self._too_large.pop(shape, None)

    def take(self, *, room: int, largest: int, is_new: bool, now: float) -> Entry | None:
        """Remove and return a row for a worker, if there is one."""
        for place, (entry, had, since) in enumerate(self._rows):
            waits = not is_new and now - since <= NEW_PROCESS_S
            if room > had + SLACK_BYTES or (room + SLACK_BYTES >= largest and not waits):
                del self._rows[place]
                return entry
        return None
