"""What each live worker holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from framefleet.cluster.dispatch.waiting_rows import Entry


@dataclass(slots=True)
class Seat:
    """One worker's."""

    rows: dict[str, Entry] = field(default_factory=dict)  # by row_id, in the order of leasing
    shape: str | None = None  # of its last lease
    done_shape: str | None = None  # of the row that it did last
    alone: bool = False
    room: int = 0  # bytes of memory that a row has here
    num_leases: int = 0  # that it has had
    last_end: float = 0.0  # when its last row was done, or when it got a row after holding none
    _leases: dict[str, int] = field(default_factory=dict)  # row_id: lease_id
    _open: dict[int, int] = field(default_factory=dict)  # lease_id: rows of it that have not ended

    @property
    def num_open(self) -> int:
        """Leases that have not ended."""
        return len(self._open)

    def grant(self, lease_id: int, entries: list[Entry], *, alone: bool, now: float) -> None:
        if not self.rows:
            self.last_end = now
        self.num_leases += 1
        self._open[lease_id] = len(entries)
        for entry in entries:
            self._leases[entry.row.row_id] = lease_id
            self.rows[entry.row.row_id] = entry
        self.shape, self.alone = entries[0].row.shape, alone

    def release(self, row_id: str) -> Entry | None:
        """Take a row out of the worker's hands; None when it is not there."""
        entry = self.rows.pop(row_id, None)
        if entry is None:
            return None
        lease_id = self._leases.pop(row_id)
        self._open[lease_id] -= 1
        if not self._open[lease_id]:
            del self._open[lease_id]
            self.alone = False
        return entry
