"""In: the row_ids of a table by position. Out: the positions of a row_id, by bisection.

Both are on disk, because a table may have a hundred million rows: a file with the row_ids (16 bytes each) in
table order, and a sorted file of keys (8 bytes each): the first bits of a row_id, then its position. If
row_ids begin alike, the first file decides. The files are nameless, in TMPDIR, so that a kill leaves nothing
behind.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ids = npt.NDArray[np.uint64]  # [rows, 2]: the two halves of a row_id
TablePositions = npt.NDArray[np.int64]  # [rows]

_WIDTH, _KEY_WIDTH = 16, 8  # bytes of a row_id, and of a key
_AT_ONCE = 2 << 20  # rows; they take about 100 MB
_BITS = 27  # of a key, for the position; the other bits are equal for 36,000 pairs of 100 million row_ids
_POSITION = np.uint64((1 << _BITS) - 1)


def to_ids(row_ids: Sequence[str]) -> Ids:
    return _parsed("".join(row_ids))


def ids_of(column: pa.ChunkedArray) -> Ids:
    """Return a column of row_ids, without nulls, as `to_ids` does, but without a Python string for each."""
    digits = column.cast(pa.binary(2 * _WIDTH)).combine_chunks()
    first, last = (place * 2 * _WIDTH for place in (digits.offset, digits.offset + len(digits)))
    return _parsed(digits.buffers()[1][first:last].to_pybytes().decode() if last > first else "")


def positions_of(column: pa.ChunkedArray) -> TablePositions:
    """Return an int64 column without nulls as an array. Its own `to_numpy` would import pandas."""
    return np.from_dlpack(column.combine_chunks()).astype(np.int64, copy=False)


def first_positions_of(column: pa.ChunkedArray) -> TablePositions | None:
    """Return the first number of each list; None if a list is empty. `pc.list_element` imports pandas."""
    lists = column.combine_chunks()
    if not len(lists) or lists.null_count or lists.values.null_count:
        return None
    starts, values = np.from_dlpack(lists.offsets), np.from_dlpack(lists.values)
    return values[starts[:-1]].astype(np.int64, copy=False) if np.diff(starts).all() else None


def _parsed(digits: str) -> Ids:
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64).reshape(-1, 2)


def to_texts(ids: Ids) -> list[str]:
    digits = ids.astype(">u8").tobytes().hex()
    return [digits[first : first + 2 * _WIDTH] for first in range(0, len(digits), 2 * _WIDTH)]


class RowIds:
    """Call `write` for all rows, then `sort`, then search. at_once: rows that are read or sorted at once."""

    def __init__(self, *, at_once: int = _AT_ONCE) -> None:
        self._files, self._at_once = ExitStack(), at_once
        self._by_position, self._sorted = _file(self._files), _file(self._files)
        self._keys = np.empty(0, np.uint64)

    def write(self, positions: TablePositions, ids: Ids) -> None:
        """Add rows in any order; each position only once."""
        edges = np.flatnonzero(np.diff(positions) != 1) + 1
        for places, run in zip(np.split(positions, edges), np.split(ids, edges), strict=True):
            self._by_position.seek(int(places[0]) * _WIDTH)
            self._by_position.write(run.tobytes())
        assert positions.max() <= _POSITION, "no table has as many rows"

    def read_at(self, positions: TablePositions | slice) -> Ids:
        """Return the row_ids at positions that have rows. Maps the file anew, to free mapped pages."""
        return _mapped(self._by_position).reshape(-1, 2)[positions]

    def sort(self, is_there: npt.NDArray[np.bool_]) -> Iterator[tuple[TablePositions, TablePositions]]:
        """Sort the rows, and yield pairs of positions with the same row_id, earlier and later, in chunks.

        is_there: [positions], whether a position has a row. Read it to the end.
        """
        num_buckets = max(1, -(-len(is_there) // self._at_once))
        bounds = np.array([(number << 64) // num_buckets for number in range(1, num_buckets)], np.uint64)
        self._sorted.truncate(0)
        self._sorted.seek(0)
        with ExitStack() as stack:
            buckets = [_file(stack) for _ in range(num_buckets)]
            for first in range(0, len(is_there), self._at_once):
                ids = self.read_at(slice(first, first + self._at_once))
                places = np.flatnonzero(is_there[first : first + len(ids)])
                keys = np.sort((ids[places, 0] & ~_POSITION) | (places + first).astype(np.uint64))
                pieces = np.split(keys, np.searchsorted(keys, bounds))
                for bucket, piece in zip(buckets, pieces, strict=True):
                    bucket.write(piece.tobytes())
            for bucket in buckets:
                bucket.seek(0)
                self._sorted.write(np.sort(np.frombuffer(bucket.read(), np.uint64)).tobytes())
        self._keys = _mapped(self._sorted)
        yield from self._twins()

    def first_positions(self, ids: Ids) -> TablePositions:
        """Return the first position of each row_id; -1 if it has none."""
        first, starts = np.full(len(ids), -1), ids[:, 0] & ~_POSITION
        left = np.argsort(starts)  # so that neighbours are searched one after the other
        places = np.searchsorted(self._keys, starts[left])
        while len(left):
            is_alike = places < len(self._keys)
            is_alike[is_alike] = self._keys[places[is_alike]] & ~_POSITION == starts[left[is_alike]]
            left, places = left[is_alike], places[is_alike]
            positions = _positions_in(self._keys[places])
            is_it = (self.read_at(positions) == ids[left]).all(axis=1)
            first[left[is_it]] = positions[is_it]
            left, places = left[~is_it], places[~is_it] + 1
        return first

    def positions(self, row_id: str) -> list[int]:
        ids = to_ids([row_id])
        start = ids[0, 0] & ~_POSITION
        first = np.searchsorted(self._keys, start)
        end = np.searchsorted(self._keys, start | _POSITION, side="right")
        positions = _positions_in(self._keys[first:end])
        return positions[(self.read_at(positions) == ids).all(axis=1)].tolist()

    def close(self) -> None:
        self._keys = np.empty(0, np.uint64)
        self._files.close()

    def _twins(self) -> Iterator[tuple[TablePositions, TablePositions]]:
        """Yield pairs of consecutive positions of the same row_id."""
        first = 0
        while first < len(self._keys):
            last = min(first + self._at_once, len(self._keys)) - 1
            end = int(np.searchsorted(self._keys, self._keys[last] | _POSITION, side="right"))
            read = os.pread(self._sorted.fileno(), (end - first) * _KEY_WIDTH, first * _KEY_WIDTH)
            keys, first = np.frombuffer(read, np.uint64), end
            is_next = np.diff(keys & ~_POSITION, append=~keys[-1:]) == 0  # the next one begins alike
            positions = _positions_in(keys[is_next | np.roll(is_next, 1)])
            ids = self.read_at(positions)
            order = np.lexsort((positions, ids[:, 1], ids[:, 0]))
            ids, positions = ids[order], positions[order]
            is_twin = (ids[1:] == ids[:-1]).all(axis=1)
            yield positions[:-1][is_twin], positions[1:][is_twin]


def _positions_in(keys: npt.NDArray[np.uint64]) -> TablePositions:
    return (keys & _POSITION).astype(np.int64)


def _file(stack: ExitStack) -> BinaryIO:
    return cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile(prefix="framefleet-")))


def _mapped(file: BinaryIO) -> npt.NDArray[np.uint64]:
    file.flush()
    return np.memmap(file, np.uint64, "r") if os.fstat(file.fileno()).st_size else np.empty(0, np.uint64)


def as_positions(positions: Iterable[int]) -> TablePositions:
    return np.fromiter(positions, np.int64)
