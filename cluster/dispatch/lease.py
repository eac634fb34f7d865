"""The words of dispatching: rows, leases of them that go to workers, and what each worker holds."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

PACE_KEEP = 0.98  # the last ~50 rows decide: several full forwards, whose rows all finish at one moment
PACE_KEEP_ALL = 0.999  # of all shapes together: a table holds them in any order
# A lease of half a minute keeps a worker busy over any hiccup of the driver's, and is soon rendered again.
LEASE_S = 30.0
MAX_LEASE_ROWS = 64
MAX_PACES = 1024  # a table may hold a shape per row; forgetting an old one costs a few short leases


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row to render."""

    row_id: str
    shape: str  # rows of equal ones can share forwards
    payload: object = None  # is never looked at
    rank: float = 0.0  # what `Ranked` and `Longest` go by, the highest first


@dataclass(frozen=True, slots=True)
class LeasedRow:
    """A row in a worker's hands; `attempt` counts from 1 and grows with every error and every death."""

    row: Row
    attempt: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Rows handed to one worker. `alone`: a suspect of killing workers; render nothing else meanwhile."""

    rows: tuple[LeasedRow, ...]
    alone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """A row that will not be tried again. `attempts` counts its errors and the deaths of its workers."""

    row: Row
    attempts: int
    errors: tuple[tuple[str, object], ...]  # (worker, error), oldest first
    reason: str
    struck_on: tuple[str, ...] = ()  # workers that died with it, once one of these deaths counts
    is_killer: bool = False  # these deaths are why, and not an error


# What a worker must have to render a row in doubt alone: a machine that has done a row, as much memory as
# there is anywhere, or both that memory and a new process.
Need = Literal["proven", "room", "new"]


@dataclass(slots=True)
class Entry:
    """A row and what has happened to it so far."""

    row: Row
    errors: tuple[tuple[str, object], ...] = ()
    deaths: int = 0
    struck_on: tuple[str, ...] = ()  # workers that died with it, also on machines that had done no row yet
    was_alone: bool = False  # when the last of these died
    why: str = ""  # what is known about that death
    tried: frozenset[str] = frozenset()  # where it failed, or its worker did
    saved_on: str = ""  # the last worker that stored a checkpoint of it, and went on
    need: Need | None = None  # it is rendered alone
    num_excused: int = 0  # workers that ended with it, and were not held against it
    # How many rows each machine had done when this one first failed as rows do on a broken machine.
    done_before: dict[str, int] | None = None

    @property
    def attempts(self) -> int:
        return len(self.errors) + self.deaths

    @property
    def strikes(self) -> int:
        return len(self.struck_on)


Whereabouts = tuple[str, ...]  # of one worker: its machine, its name, its process; the widest first


@dataclass(slots=True)
class Seat:
    """What one live worker holds."""

    rows: dict[str, Entry] = field(default_factory=dict)  # by row_id, in the order of leasing
    shape: str | None = None  # of its last lease
    done_shape: str | None = None  # of the row that it did last
    alone: bool = False
    room: int = 0  # bytes of memory that a row has here
    num_leases: int = 0  # that it has had
    last_end: float = 0.0  # when its last row was done, or when it got a row after holding none
    _leases: dict[str, int] = field(default_factory=dict)  # row_id: the number of its lease

    @property
    def num_open(self) -> int:
        """Leases that have not ended."""
        return len({*self._leases.values()})

    def grant(self, entries: list[Entry], *, alone: bool, now: float) -> None:
        if not self.rows:
            self.last_end = now
        self.num_leases += 1
        for entry in entries:
            self._leases[entry.row.row_id] = self.num_leases
            self.rows[entry.row.row_id] = entry
        self.shape, self.alone = entries[0].row.shape, alone

    def release(self, row_id: str) -> Entry | None:
        """Take a row out of the worker's hands; None when it is not there."""
        entry = self.rows.pop(row_id, None)
        if entry is None:
            return None
        if self._leases.pop(row_id) not in self._leases.values():
            self.alone = False
        return entry


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSize:
    """How many rows a lease may hold, and how many seconds it should last."""

    min_rows: int = 1  # those of one forward, so that forwards can fill
    max_rows: int = 64
    target_s: float = 60.0

    def __post_init__(self) -> None:
        assert 1 <= self.min_rows <= self.max_rows, f"min_rows {self.min_rows}, max_rows {self.max_rows}"

    def rows(self, *, seconds_per_row: float | None, share: int | None) -> int:
        """Return how many rows fit the target; an unmeasured shape gets the least.

        share: the most that there may be once the table is exhausted, also 0. It goes below `min_rows` so
        that workers finish together.
        """
        if seconds_per_row is None:
            fitting = self.min_rows
        elif seconds_per_row * self.max_rows <= self.target_s:
            fitting = self.max_rows
        else:
            fitting = max(self.min_rows, int(self.target_s / seconds_per_row))
        return fitting if share is None else min(fitting, share)


class Paces:
    """Seconds that one worker needs for one row, by shape, measured from the times at which rows end.

    The time between two rows of one worker counts for the second. Rows of a fused forward end together,
    so single gaps say nothing (80 s, 0 s, 0 s, ...): both seconds and rows are summed, fading with age.
    """

    def __init__(self) -> None:
        # By shape: seconds, rows, the rows that each of these shared its forwards with, and ranks, summed.
        self._sums: OrderedDict[str, tuple[float, float, float, float]] = OrderedDict()
        self._all_s = self._all_rows = self._all_ranks = 0.0

    def saw(self, row: Row, *, seconds: float, batch_size: float = 1.0) -> None:
        """Note a row that ended. seconds: since the one before. batch_size: rows in its forwards."""
        shape, seconds = row.shape, max(0.0, seconds)
        self._all_s = self._all_s * PACE_KEEP_ALL + seconds
        self._all_rows = self._all_rows * PACE_KEEP_ALL + 1
        self._all_ranks = self._all_ranks * PACE_KEEP_ALL + row.rank
        sums = self._sums.get(shape, (0.0, 0.0, 0.0, 0.0))
        total, rows, sizes, ranks = (PACE_KEEP * number for number in sums)
        self._sums[shape] = (total + seconds, rows + 1, sizes + batch_size, ranks + row.rank)
        self._sums.move_to_end(shape)
        if len(self._sums) > MAX_PACES:
            self._sums.popitem(last=False)

    def seconds_per_row(self, shape: str) -> float | None:
        if shape not in self._sums:
            return None
        seconds, rows, *_ = self._sums[shape]
        return seconds / rows

    def seconds_per_rank(self, shape: str) -> float:
        """Return the seconds that a unit of `Row.rank` takes in a shape, if that is the work in a row.

        For a new shape, it is the mean of all others; 1 as long as nothing is known.
        """
        seconds, _, _, ranks = self._sums.get(shape, (self._all_s, 0.0, 0.0, self._all_ranks))
        return seconds / ranks if seconds and ranks else 1.0

    @property
    def mean_seconds(self) -> float | None:
        return self._all_s / self._all_rows if self._all_rows else None

    def batch_size(self, shape: str) -> int:
        _, rows, sizes, _ = self._sums.get(shape, (0.0, 1.0, 1.0, 0.0))
        return max(1, round(sizes / rows))
