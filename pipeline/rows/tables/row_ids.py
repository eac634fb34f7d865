"""In: the row_ids of a table by position. Out: the positions of a row_id, by bisection.

Both are files, as a table may have a hundred million rows: 16 bytes for each row in the order of the table,
and 24 sorted by row_id. Nameless files in TMPDIR, so that no kill leaves them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ids = npt.NDArray[np.uint64]  # [rows, 2]: the two halves of a row_id
TablePositions = npt.NDArray[np.int64]  # [rows]

_WIDTH = 16  # bytes of a row_id
_SORTED_AT_ONCE = 4 << 20  # rows, in some 300 MB


def to_ids(row_ids: Sequence[str]) -> Ids:
    return _parsed("".join(row_ids))


def ids_of(column: pa.ChunkedArray) -> Ids:
    """Return a column of row_ids as `to_ids` does, without a text of Python's for each. None may be null."""
    return _parsed(_content(column.cast(pa.binary(2 * _WIDTH)), 2 * _WIDTH).decode())


def positions_of(column: pa.ChunkedArray) -> TablePositions:
    """Return a column of int64 of which none is null. Its own `to_numpy` would import pandas."""
    return np.frombuffer(_content(column, 8), np.int64)


def first_positions_of(column: pa.ChunkedArray) -> TablePositions | None:
    """Return the first of each list of int64; None where one has none. `pc.list_element` imports pandas."""
    lists = column.combine_chunks()
    starts = np.frombuffer(lists.buffers()[1] or b"", np.int32)[lists.offset : lists.offset + len(lists) + 1]
    values = lists.values
    if not len(lists) or lists.null_count or values.null_count or not np.diff(starts).all():
        return None
    firsts: TablePositions = np.frombuffer(values.buffers()[1], np.int64)[values.offset + starts[:-1]]
    return firsts


def _content(column: pa.ChunkedArray, width: int) -> bytes:
    """Return the bytes of a column whose values are all this wide."""
    array = column.combine_chunks()
    first, last = (place * width for place in (array.offset, array.offset + len(array)))
    content: bytes = array.buffers()[1][first:last].to_pybytes() if last > first else b""
    return content


def _parsed(digits: str) -> Ids:
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64).reshape(-1, 2)


def to_texts(ids: Ids) -> list[str]:
    digits = ids.astype(">u8").tobytes().hex()
    return [digits[first : first + 2 * _WIDTH] for first in range(0, len(digits), 2 * _WIDTH)]


@dataclass(frozen=True, slots=True)
class _Sorted:
    """Rows sorted by row_id, those of one row_id by position."""

    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]
    positions: TablePositions


class RowIds:
    """First write, then `sort`, then find. at_once: rows that are read or sorted at once."""

    def __init__(self, *, at_once: int = _SORTED_AT_ONCE) -> None:
        self._files, self._at_once = ExitStack(), at_once
        self._by_position = self._file()
        self._sorted: _Sorted | None = None
        self._num_positions = 0

    def write(self, positions: TablePositions, ids: Ids) -> None:
        """Take rows in any order; a position only once."""
        edges = np.flatnonzero(np.diff(positions) != 1) + 1
        for places, run in zip(np.split(positions, edges), np.split(ids, edges), strict=True):
            self._by_position.seek(int(places[0]) * _WIDTH)
            self._by_position.write(run.tobytes())
        self._num_positions = max(self._num_positions, int(positions.max()) + 1)

    def read(self, first: int, n: int) -> Ids:
        """Return the row_ids from one position on; zeros where there is none."""
        self._by_position.flush()
        n = max(0, min(n, self._num_positions - first))
        found = os.pread(self._by_position.fileno(), n * _WIDTH, first * _WIDTH)
        return np.frombuffer(found, np.uint64).reshape(-1, 2)

    def read_at(self, positions: TablePositions) -> Ids:
        """Return the row_ids at positions that are near each other."""
        if not len(positions):
            return np.empty((0, 2), np.uint64)
        first = int(positions.min())
        return self.read(first, int(positions.max()) + 1 - first)[positions - first]

    def sort(self, is_there: npt.NDArray[np.bool_]) -> TablePositions:
        """Sort the rows; return the positions of those whose row_id is at an earlier one too.

        is_there: [positions], where there is a row.
        """
        columns = [self._file(), self._file(), self._file()]
        num_passes = max(1, -(-len(is_there) // self._at_once))
        twins = []
        for number in range(num_passes):  # the row_ids are read this often, each time for one range of them
            ids, positions = self._ids_in_range(is_there, number, num_passes)
            order = _order(ids, positions)
            ids, positions = ids[order], positions[order]
            twins.append(positions[1:][(ids[1:] == ids[:-1]).all(axis=1)])
            for file, column in zip(columns, (ids[:, 0], ids[:, 1], positions), strict=True):
                file.write(column.tobytes())
        high, low = (_mapped(file, np.uint64) for file in columns[:2])
        self._sorted = _Sorted(high, low, _mapped(columns[2], np.int64))
        return np.concatenate(twins)

    def first_positions(self, ids: Ids) -> TablePositions:
        """Return the first position of each row_id, -1 where it has none."""
        places, found = self._places(ids), np.full(len(ids), -1)
        is_found = places >= 0
        found[is_found] = self._rows.positions[places[is_found]]
        return found

    def positions(self, row_id: str) -> list[int]:
        """Return every position of a row_id, in order."""
        ids, rows = to_ids([row_id]), self._rows
        (place,) = self._places(ids)
        found = []
        while 0 <= place < len(rows.high) and (rows.high[place], rows.low[place]) == (ids[0, 0], ids[0, 1]):
            found.append(int(rows.positions[place]))
            place += 1
        return found

    def close(self) -> None:
        self._sorted = None
        self._files.close()

    @property
    def _rows(self) -> _Sorted:
        assert self._sorted is not None, "the rows are not sorted"
        return self._sorted

    def _places(self, ids: Ids) -> TablePositions:
        """Return where in the sorted rows each row_id begins, -1 where it is not."""
        rows, found = self._rows, np.full(len(ids), -1)
        order = np.argsort(ids[:, 0])  # then neighbours are looked for one after the other
        places = np.empty(len(ids), np.int64)
        places[order] = np.searchsorted(rows.high, ids[order, 0])
        left = np.flatnonzero(places < len(rows.high))
        while len(left := left[rows.high[places[left]] == ids[left, 0]]):
            is_it = rows.low[places[left]] == ids[left, 1]
            found[left[is_it]] = places[left[is_it]]
            left = left[~is_it]  # another with the same first half
            places[left] += 1
            left = left[places[left] < len(rows.high)]
        return found

    def _ids_in_range(
        self, is_there: npt.NDArray[np.bool_], number: int, num_ranges: int
    ) -> tuple[Ids, TablePositions]:
        """Return the row_ids in one of `num_ranges` even ranges, and their positions, which rise."""
        ids, positions = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int64)]
        for first in range(0, len(is_there), self._at_once):
            piece = self.read(first, self._at_once)
            ranges = ((piece[:, 0] >> np.uint64(32)) * np.uint64(num_ranges)) >> np.uint64(32)
            wanted = np.flatnonzero((ranges == number) & is_there[first : first + len(piece)])
            ids.append(piece[wanted])
            positions.append(wanted + first)
        return np.concatenate(ids), np.concatenate(positions)

    def _file(self) -> BinaryIO:
        return cast(BinaryIO, self._files.enter_context(tempfile.TemporaryFile(prefix="framefleet-")))


def _order(ids: Ids, positions: TablePositions) -> TablePositions:
    """Return how to take rows, so that they are sorted by row_id, and those of one by position."""
    order = np.argsort(ids[:, 0])  # five times as fast, and enough where no first halves are equal
    is_enough = np.diff(ids[order, 0]).all()
    return order if is_enough else np.lexsort((positions, ids[:, 1], ids[:, 0]))


def _mapped(file: BinaryIO, kind: Any) -> npt.NDArray[Any]:
    file.flush()
    return np.memmap(file, kind, "r") if os.fstat(file.fileno()).st_size else np.empty(0, kind)


def as_positions(positions: Iterable[int]) -> TablePositions:
    return np.fromiter(positions, np.int64)
