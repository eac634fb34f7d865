"""Merge many small parts of records into a few large ones, while no job adds any.

At every moment, each row is in one part that counts; see `HeldOutput.merge`. Rows of a larger part are in the
order of the table, so that neighbours are read together. Parts without an epoch are made by people, and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.api.commands import Overview
from framefleet.api.outputs import RECORDS, HeldOutput, Part

# File size for some 50,000 records, read in one request. In memory it may be larger, as texts repeat.
LARGE_BYTES, MOST_BYTES_UNPACKED = 32 << 20, 128 << 20
_MOST_ROWS = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Compacted(Overview):
    """Parts of records, before and after."""

    num_before: int
    num_after: int
    num_rows_merged: int  # in the merged parts

    def overview(self) -> Mapping[str, object]:
        parts = f"{self.num_before:,} before, {self.num_after:,} now"
        return {"parts": parts, "rows merged": f"{self.num_rows_merged:,}"}


@dataclass(slots=True)
class _Group:
    """Parts to merge. num_bytes: of their files; unpacked: in memory."""

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
        """Whether they reach half of any limit; such a part is not merged again."""
        return (
            self.num_bytes >= LARGE_BYTES // 2
            or self.unpacked >= MOST_BYTES_UNPACKED // 2
            or self.num_rows >= _MOST_ROWS // 2
        )


def merge_small_parts(held: HeldOutput, on_rows: Callable[[int], None] = lambda num: None) -> Compacted:
    """Merge the small parts of records, while no job adds any.

    on_rows: called with the number of merged records. Raises JobError for a damaged part.
    """
    parts = held.parts(RECORDS)
    sizes = {path: stored.size for path, stored in held.store.details(RECORDS).items()}
    small = [part for part in parts if part.epoch and sizes.get(part.path, 0) < LARGE_BYTES // 2]
    num_after, num_rows = len(parts), 0
    for group in _groups(held, small, sizes, parts):
        if len(group.parts) == 1 or not held.merge(group.parts, _merged(group.tables)):
            continue
        num_after -= len(group.parts) - 1
        num_rows += group.num_rows
        on_rows(num_rows)
    pa.default_memory_pool().release_unused()
    return Compacted(num_before=len(parts), num_after=num_after, num_rows_merged=num_rows)


def _groups(
    held: HeldOutput, parts: Sequence[Part], sizes: Mapping[str, int], others: Sequence[Part]
) -> Iterator[_Group]:
    """Yield groups of neighbouring parts with equal columns that make a large part, or a single large one.

    Of rows with two records, only those records that count: a merged part is newer than others.
    """
    group = _Group()
    later = [part for part in others if parts and part >= parts[0]]
    counts = dict(zip(later, held.which_count(later), strict=True))
    for part, table in zip(parts, held.read(parts), strict=True):
        if not pc.all(counts[part]).as_py():
            table = table.filter(counts[part])
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


def _merged(tables: Sequence[pa.Table]) -> pa.Table:
    """Return all rows, in the order of the table if they have it."""
    table = pa.concat_tables(tables)
    places = table["row_indices"]
    if pc.all(pc.greater(pc.list_value_length(places), 0), skip_nulls=False).as_py():
        table = table.take(pc.sort_indices(pc.list_element(places, 0)))
    return table
