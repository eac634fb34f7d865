"""In: the row_ids of a table by position. Out: the positions of a row_id, by bisection.

Both are files, as a table may have a hundred million rows: 16 bytes for each row in the order of the table,
and 24 sorted by row_id. Nameless files in TMPDIR, so that no kill leaves them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ids = npt.NDArray[np.uint64]  # [rows, 2]: the two halves of a row_id
TablePositions = npt.NDArray[np.int64]  # [rows]

_WIDTH = 16  # bytes of a row_id
_SORTED_AT_ONCE = 2 << 20  # rows of one bucket, in some 150 MB
_NUM_THREADS = 2  # that sort, each a bucket: numpy needs no lock of Python's for it


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

    def sort(self, is_there: npt.NDArray[np.bool_]) -> tuple[TablePositions, TablePositions]:
        """Sort the rows; return the positions of those whose row_id is at a later one too, and at an earlier.

        is_there: [positions], where there is a row.
        """
        columns = [self._file(), self._file(), self._file()]
        with ExitStack() as stack:
            buckets, sizes = self._bucketed(is_there, stack)
            firsts = np.cumsum([0, *sizes[:-1]])

            def sort_bucket(bucket: BinaryIO, first: int) -> tuple[TablePositions, TablePositions]:
                rows = _sorted_rows(bucket)
                for file, column in zip(columns, rows.T, strict=True):
                    _write_at(file, column.tobytes(), first * column.itemsize)
                is_twin = (rows[1:, :2] == rows[:-1, :2]).all(axis=1)
                positions = rows[:, 2].astype(np.int64)
                return positions[:-1][is_twin], positions[1:][is_twin]

            with ThreadPoolExecutor(_NUM_THREADS) as pool:
                twinned, twins = zip(*pool.map(sort_bucket, buckets, firsts.tolist()), strict=True)
        high, low = (_mapped(file, np.uint64) for file in columns[:2])
        self._sorted = _Sorted(high, low, _mapped(columns[2], np.int64))
        return np.concatenate(twinned), np.concatenate(twins)

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

    def _bucketed(
        self, is_there: npt.NDArray[np.bool_], stack: ExitStack
    ) -> tuple[list[BinaryIO], list[int]]:
        """Return files that each hold the rows of one even range of row_ids, and how many rows.

        A row has three numbers: the halves of its row_id, its position. Rows stand in the order of the table.
        """
        num_buckets = max(1, -(-len(is_there) // self._at_once))
        buckets, sizes = [_file(stack) for _ in range(num_buckets)], [0] * num_buckets
        for first in range(0, len(is_there), self._at_once):
            ids = self.read(first, self._at_once)
            places = np.flatnonzero(is_there[first : first + len(ids)])
            rows = np.column_stack((ids[places], (places + first).astype(np.uint64)))
            ranges = ((rows[:, 0] >> np.uint64(32)) * np.uint64(num_buckets)) >> np.uint64(32)
            order = np.argsort(ranges, kind="stable")
            edges = np.searchsorted(ranges[order], np.arange(num_buckets + 1))
            for number, piece in enumerate(np.split(rows[order], edges[1:-1])):
                buckets[number].write(piece.tobytes())
                sizes[number] += len(piece)
        return buckets, sizes

    def _file(self) -> BinaryIO:
        return _file(self._files)


def _file(stack: ExitStack) -> BinaryIO:
    return cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile(prefix="framefleet-")))


def _sorted_rows(bucket: BinaryIO) -> npt.NDArray[np.uint64]:
    """Return the rows of a bucket sorted by row_id, those of one row_id by position. The bucket is closed."""
    with bucket:
        bucket.seek(0)
        rows = np.frombuffer(bucket.read(), np.uint64).reshape(-1, 3)
    order = np.argsort(rows[:, 0])  # five times as fast, and enough where no first halves are equal
    if not np.diff(rows[order, 0]).all():
        order = np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))
    return rows[order]


def _write_at(file: BinaryIO, content: bytes, at: int) -> None:
    left = memoryview(content)
    while left:  # less is written at once where a disk is full: then the next time raises
        written = os.pwrite(file.fileno(), left, at)
        left, at = left[written:], at + written


def _mapped(file: BinaryIO, kind: Any) -> npt.NDArray[Any]:
    file.flush()
    return np.memmap(file, kind, "r") if os.fstat(file.fileno()).st_size else np.empty(0, kind)


def as_positions(positions: Iterable[int]) -> TablePositions:
    return np.fromiter(positions, np.int64)
