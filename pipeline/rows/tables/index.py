"""Which rows of a table are doubled, done or still to render.

For each row of the table, this takes a byte of memory, two more with several lanes, and 24 bytes of disk, see
`row_ids.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.rows.identity import LaneKey
from framefleet.pipeline.rows.tables.row_ids import (
    Ids,
    RowIds,
    TablePositions,
    as_positions,
    to_ids,
    to_texts,
)

# Marks of a position. All but the first three are set at the first position of a row_id.
_THERE = np.uint8(1)
_TWIN = np.uint8(2)  # its row_id is at an earlier position too
_LEFT_OUT = np.uint8(4)
_DONE = np.uint8(8)
_DOUBLED = np.uint8(16)  # marked done more than once
_AGAIN = np.uint8(32)  # for the next pass over the table
_REOPENED = np.uint8(64)  # for this pass, if it is not the first
_HAS_TWIN = np.uint8(128)  # its row_id is at a later position too
_LOOKED_AT_ONCE = 1 << 20  # positions
MAX_LANES = 1 << 10  # models and users' recipes: each needs a worker that loads its model


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """rows: all that were added. duplicates: those with the row_id of an earlier row; others are `distinct`.

    done: have a record. pending: this run renders them. later: neither, because this run renders only some.
    """

    rows: int
    distinct: int
    duplicates: int
    done: int
    pending: int
    later: int = 0


class RowIndex:
    """All positions of each row_id. Add every row before you mark and query. For one thread at a time.

    In methods, `lane` limits the answer to its rows; None means all rows. lanes: all lanes of rows, in order
    of appearance; if none were passed, all rows are in one lane.
    """

    def __init__(self) -> None:
        self._ids = RowIds()
        self._marks = np.zeros(0, np.uint8)
        self._numbers: dict[LaneKey, int] = {}
        self._lanes = np.zeros(0, np.uint16)  # the number of each position's lane; empty if there is only one
        self._num_positions = 0
        self._is_sorted = False
        self._num_rows = self._num_twins = self._num_done = 0
        self._num_later = 0  # rows that are marked done without a record
        self._num_reopened: dict[LaneKey | None, int] = {}  # by lane, if this is not its first pass
        self.num_left_out = 0
        self.is_whole = True  # this run renders all rows without a record
        self.num_doubled = 0  # rows that were marked done more than once
        self.num_foreign = 0  # row_ids that were marked done but are not in the table

    @property
    def lanes(self) -> tuple[LaneKey, ...]:
        return tuple(self._numbers)

    def add(self, rows: Iterable[tuple[int, str]], lanes: Sequence[LaneKey] = ()) -> None:
        """Add rows as (position in the table, row_id), in any order; each position only once.

        lanes: one for each row. Raises TableError if there are more than a fleet can serve, and adds none.
        """
        pairs = list(rows)
        self.add_ids(as_positions(at for at, _ in pairs), to_ids([row_id for _, row_id in pairs]), lanes)

    def add_ids(self, positions: TablePositions, ids: Ids, lanes: Sequence[LaneKey] = ()) -> None:
        """Add rows as `add` does, from arrays."""
        if not len(positions):
            return
        if len(self._numbers.keys() | {*lanes}) > MAX_LANES:
            problem = f"the table's rows name more than {MAX_LANES:,} models and recipes of your own"
            raise TableError(problem, "render them in several jobs: each of these loads its model again")
        self._mark(positions, _THERE)
        self._ids.write(positions, ids)
        self._num_rows += len(positions)
        self._is_sorted = False
        numbers = [self._numbers.setdefault(lane, len(self._numbers)) for lane in lanes]
        if len(self._numbers) > 1:
            if missing := len(self._marks) - len(self._lanes):
                self._lanes = np.concatenate((self._lanes, np.zeros(missing, np.uint16)))
            self._lanes[positions] = numbers

    def lanes_at(self, positions: Sequence[int]) -> list[LaneKey]:
        """Return the lanes of rows; [] if none were passed to `add`."""
        lanes = self.lanes
        if len(lanes) < 2:
            return [*lanes] * len(positions)
        return [lanes[number] for number in self._lanes[list(positions)]]

    def leave_out(self, positions: Iterable[int]) -> None:
        """Exclude rows by position from rendering; call it only once for each."""
        left_out = as_positions(positions)
        self._mark(left_out, _LEFT_OUT)
        self.num_left_out += len(left_out)

    def left_out_in(self, first: int, n: int) -> set[int]:
        """Return the positions in `first` to `first + n` that were left out."""
        return set(self._marked(_LEFT_OUT, first, n).tolist())

    def mark_done(self, ids: Ids, expected_at: TablePositions | None = None, *, since: int = 0) -> int:
        """Note that these rows have a record; return how many are new. Rows of other tables are ignored.

        expected_at: their likely first positions, which are tried first. since: rows before this position are
        ignored.
        """
        positions = self._rows(ids, expected_at)
        self.num_foreign += len(ids) - len(positions)
        rows, times = np.unique(positions[positions >= since], return_counts=True)
        marks = self._marks[rows]
        is_doubled = ((marks & _DONE > 0) | (times > 1)) & (marks & _DOUBLED == 0)
        self.num_doubled += int(is_doubled.sum())
        self._marks[rows[is_doubled]] |= _DOUBLED
        num_new = int((marks & _DONE == 0).sum())
        self._marks[rows] |= _DONE
        self._num_done += num_new
        return num_new

    def is_pending(self, row_id: str) -> bool | None:
        """Return whether a row is still to render; None if it is not in the table."""
        rows = self._rows(to_ids([row_id]))
        return not self._marks[rows[0]] & _DONE if len(rows) else None

    def leave_only(self, row_ids: Iterable[str]) -> None:
        """Limit the rows to be rendered to these."""
        self.is_whole = False
        others = np.ones(self._num_positions, np.bool_)
        others[self._rows(to_ids([*row_ids]))] = False
        marks = self._marks[: self._num_positions]
        marks[others & (marks & (_THERE | _TWIN) == _THERE)] |= _DONE
        num_done, self._num_done = self._num_done, int((marks & _DONE > 0).sum())
        self._num_later += self._num_done - num_done

    def render_again(self, row_ids: Iterable[str]) -> int:
        """Queue rows whose records were withdrawn for the next pass; return how many were marked done."""
        rows = np.unique(self._rows(to_ids([*row_ids])))
        self._marks[rows] |= _AGAIN
        return int((self._marks[rows] & _DONE > 0).sum())

    def render_added(self, first: int) -> int:
        """Queue rows from position `first` on without a record for the next pass; return how many."""
        self._sort()
        marks = self._marks[first : self._num_positions]
        new = marks & (_THERE | _TWIN | _DONE) == _THERE
        marks[new] |= _AGAIN
        return int(new.sum())

    def reopen(self, lane: LaneKey | None = None) -> int:
        """Start a pass over the queued rows, if there are any; return how many."""
        again = self._of(lane, self._marked(_AGAIN, 0, self._num_positions))
        if len(again):
            before = self._of(lane, self._marked(_REOPENED, 0, self._num_positions))
            self._marks[before] &= ~_REOPENED
            self._marks[again] ^= _AGAIN | _REOPENED
            self._num_reopened[lane] = len(again)
        return len(again)

    def num_pending(self, lane: LaneKey | None) -> int:
        """Return how many rows this pass renders."""
        if lane in self._num_reopened or lane is None:
            return self._num_reopened.get(lane, self.counts().pending)
        firsts = range(0, self._num_positions, _LOOKED_AT_ONCE)
        return sum(len(self._pending(first, _LOOKED_AT_ONCE, lane)) for first in firsts)

    def counts(self) -> RowCounts:
        self._sort()
        distinct = self._num_rows - self._num_twins
        pending = self._num_reopened.get(None, distinct - self._num_done)
        return RowCounts(
            rows=self._num_rows,
            distinct=distinct,
            duplicates=self._num_twins,
            done=distinct - pending - self._num_later,
            pending=pending,
            later=self._num_later,
        )

    def first_pending(self, lane: LaneKey | None = None) -> int:
        """Return the position of the first row to render; the end of the table if there is none."""
        for first in range(0, self._num_positions, _LOOKED_AT_ONCE):
            if len(pending := self._pending(first, _LOOKED_AT_ONCE, lane)):
                return int(pending[0])
        return self._num_positions

    def pending_in(self, first: int, n: int, lane: LaneKey | None = None) -> list[tuple[int, str]]:
        """Return (position, row_id) of rows to render, in table order; only the first of each row_id."""
        return self._with_row_ids(self._pending(first, n, lane))

    def row_ids_in(self, first: int, n: int) -> list[tuple[int, str]]:
        """Return (position, row_id) of all rows in `first` to `first + n`, in table order."""
        return self._with_row_ids(self._marked(_THERE, first, n))

    def positions(self, row_id: str, first: int) -> list[int]:
        """Return every position of a row_id in table order. first: the first of them."""
        self._sort()
        return self._ids.positions(row_id) if self._marks[first] & _HAS_TWIN else [first]

    def close(self) -> None:
        self._ids.close()

    def _mark(self, positions: TablePositions, mark: np.uint8) -> None:
        if not len(positions):
            return
        self._num_positions = max(self._num_positions, int(positions.max()) + 1)
        if self._num_positions > len(self._marks):
            room = max(self._num_positions, len(self._marks) * 5 // 4)
            self._marks = np.concatenate((self._marks, np.zeros(room - len(self._marks), np.uint8)))
        self._marks[positions] |= mark

    def _pending(self, first: int, n: int, lane: LaneKey | None) -> TablePositions:
        self._sort()
        if lane in self._num_reopened:
            return self._of(lane, self._marked(_REOPENED, first, n))
        return self._of(lane, self._marked(_THERE | _TWIN | _DONE, first, n, are=_THERE))

    def _of(self, lane: LaneKey | None, positions: TablePositions) -> TablePositions:
        """Return the positions of a lane's rows. All positions must have a lane."""
        if lane is None or not self._numbers or self.lanes == (lane,):
            return positions
        if lane not in self._numbers or len(self._numbers) == 1:
            return positions[:0]
        is_of_lane: npt.NDArray[np.bool_] = self._lanes[positions] == self._numbers[lane]
        return positions[is_of_lane]

    def _marked(self, which: np.uint8, first: int, n: int, *, are: np.uint8 | None = None) -> TablePositions:
        """Return the positions in `first` to `first + n` whose marks `which` are all set, or equal `are`."""
        marks = self._marks[first : min(first + n, self._num_positions)]
        return np.flatnonzero(marks & which == (which if are is None else are)) + first

    def _with_row_ids(self, positions: TablePositions) -> list[tuple[int, str]]:
        return list(zip(positions.tolist(), to_texts(self._ids.read_at(positions)), strict=True))

    def _rows(self, ids: Ids, expected_at: TablePositions | None = None) -> TablePositions:
        """Return the first position of each row_id that is in the table."""
        self._sort()
        positions = np.full(len(ids), -1)
        if expected_at is not None:
            likely = np.flatnonzero((expected_at >= 0) & (expected_at < self._num_positions))
            likely = likely[self._marks[expected_at[likely]] & (_THERE | _TWIN) == _THERE]
            is_it = (self._ids.read_at(expected_at[likely]) == ids[likely]).all(axis=1)
            positions[likely[is_it]] = expected_at[likely[is_it]]
        elsewhere = positions < 0
        positions[elsewhere] = self._ids.first_positions(ids[elsewhere])
        return positions[positions >= 0]

    def _sort(self) -> None:
        if self._is_sorted:
            return
        is_there: npt.NDArray[np.bool_] = self._marks[: self._num_positions] & _THERE > 0
        for twinned, twins in self._ids.sort(is_there):
            self._marks[twinned] |= _HAS_TWIN
            self._marks[twins] |= _TWIN
        self._num_twins = int((self._marks & _TWIN > 0).sum())
        self._is_sorted = True
