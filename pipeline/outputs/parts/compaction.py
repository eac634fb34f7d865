"""Many small parts of records merged into a few large ones, also while others read and the driver adds parts.

A larger part is stored, then one write lets it count in place of the others (`MergingHold`), then these go.
So each row is in one part that counts at every moment. Wherever a kill comes, the next driver deletes what is
left. Who had listed the others finds their rows (`merged_parts.py`). The rows of a larger part are in the
order of the table, so that neighbours are read together. Parts without an epoch are people's, and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.outputs.parts.merged_parts import origins_in, origins_of_merged
from framefleet.pipeline.outputs.parts.part_file import JOB, ORIGINS, metadata_of, to_parquet
from framefleet.pipeline.outputs.parts.part_names import Part, merging_run, part_path
from framefleet.pipeline.outputs.parts.parts import read_parts
from framefleet.pipeline.outputs.parts.seals import MergingHold, live_parts
from framefleet.pipeline.outputs.stores.store import Store

# As a file: some 50,000 records, read in one request. In memory they may be larger, as texts repeat.
LARGE_BYTES, MOST_BYTES_UNPACKED = 32 << 20, 128 << 20
_MOST_ROWS = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """Parts of records, before and after."""

    num_before: int
    num_after: int
    num_rows: int  # of the parts that were merged


@dataclass(slots=True)
class _Group:
    """Parts that are merged. num_bytes: of their files; unpacked: in memory."""

    parts: list[Part] = field(default_factory=list)
    tables: list[pa.Table] = field(default_factory=list)
    num_bytes: int = 0
    unpacked: int = 0
    num_rows: int = 0

    def takes(self, part: Part, table: pa.Table, num_bytes: int) -> bool:
        """Add a part, if it fits."""
        num_bytes, unpacked = self.num_bytes + num_bytes, self.unpacked + table.nbytes
        num_rows = self.num_rows + len(table)
        is_alike = not self.tables or table.schema.equals(self.tables[0].schema)
        is_small = num_bytes <= LARGE_BYTES and unpacked <= MOST_BYTES_UNPACKED and num_rows <= _MOST_ROWS
        if self.parts and not (is_alike and is_small):
            return False
        self.parts.append(part)
        self.tables.append(table)
        self.num_bytes, self.unpacked, self.num_rows = num_bytes, unpacked, num_rows
        return True

    @property
    def is_large(self) -> bool:
        """Whether they are half of what a part may be, by any measure: such a part is not merged again."""
        return (
            self.num_bytes >= LARGE_BYTES // 2
            or self.unpacked >= MOST_BYTES_UNPACKED // 2
            or self.num_rows >= _MOST_ROWS // 2
        )


class Compactor:
    """Merges small parts, for who holds the output; again and again while parts are added."""

    def __init__(self, store: Store, hold: MergingHold) -> None:
        self._store, self._hold = store, hold
        self._run, self._num_parts = "", 0
        self._schema: pa.Schema | None = None  # of the parts of the run
        self._large: set[str] = set()  # parts that are so, though their files are small

    def compact(self, on_rows: Callable[[int], None] = lambda num: None) -> Compacted:
        """Merge what is small now. on_rows: is called with how many records were merged.

        Raises JobError for a part that is damaged. After a StoreError make no other call: whether the last
        part counts is not known then.
        """
        parts = live_parts(self._store)
        sizes = {path: stored.size for path, stored in self._store.details(RECORDS).items()}
        small = [
            part
            for part in parts
            if part.epoch and sizes.get(part.path, 0) < LARGE_BYTES // 2 and part.path not in self._large
        ]
        num_after, num_rows = len(parts), 0
        for group in _groups(self._store, small, sizes):
            path = group.parts[0].path
            if len(group.parts) > 1:
                path = self._merge(group)
                num_after -= len(group.parts) - 1
                num_rows += group.num_rows
                on_rows(num_rows)
            if group.is_large:
                self._large.add(path)
        pa.default_memory_pool().release_unused()
        return Compacted(num_before=len(parts), num_after=num_after, num_rows=num_rows)

    def _merge(self, group: _Group) -> str:
        """Store a part in place of these; return its path."""
        schema = group.tables[0].schema
        if self._schema is None or not schema.equals(self._schema):
            self._run, self._num_parts, self._schema = merging_run(self._hold.epoch), 0, schema
            self._hold.merged((), run=self._run, count=0)
        content = _merged(self._store, group)
        self._hold.check()
        path = part_path(RECORDS, self._run, self._num_parts + 1, content)
        self._store.create(path, content)
        self._num_parts += 1
        self._hold.merged(group.parts, run=self._run, count=self._num_parts)
        self._hold.check()
        self._store.delete_many([part.path for part in group.parts])
        return path


def _groups(store: Store, parts: Sequence[Part], sizes: Mapping[str, int]) -> Iterator[_Group]:
    """Yield neighbours of equal columns that make a large part together; one that is large by itself."""
    group = _Group()
    tables = read_parts(store, [part.path for part in parts], None)
    for part, table in zip(parts, tables, strict=True):
        alone = _Group()
        alone.takes(part, table, sizes[part.path])
        if alone.is_large:
            yield from (one for one in (group, alone) if one.parts)
            group = _Group()
        elif not group.takes(part, table, sizes[part.path]):
            yield group
            group = alone
    if group.parts:
        yield group


def _merged(store: Store, group: _Group) -> bytes:
    """Return the file of the part in place of these."""
    # All parts of a run say alike what they are.
    said = {
        run: metadata_of(store, next(of_run).path)
        for run, of_run in groupby(group.parts, lambda part: part.run)
    }
    earlier = [origins_in(store, part.path) if ORIGINS in said[part.run] else None for part in group.parts]
    table = pa.concat_tables(group.tables)
    order = _table_order(table)
    origins = origins_of_merged(group.parts, [len(one) for one in group.tables], earlier, order)
    jobs = [metadata[JOB] for metadata in said.values() if JOB in metadata]
    job = {JOB: jobs[-1]} if jobs else {}
    return to_parquet(table.take(order), {**job, ORIGINS: origins.to_text()})


def _table_order(table: pa.Table) -> npt.NDArray[np.int64]:
    """Return where rows are in the order of the table; as they are, where any has no place."""
    places = table["row_indices"]
    if pc.all(pc.greater(pc.list_value_length(places), 0), skip_nulls=False).as_py():
        return pc.sort_indices(pc.list_element(places, 0)).to_numpy()  # type: ignore[no-any-return]
    return np.arange(len(table))
