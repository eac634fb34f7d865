"""Many small parts of records merged into a few large ones; a kill in between loses nothing.

A large part is stored before the small ones go. Until then their rows have two records, of which readers take
one, and who holds the output next finishes what was begun (`replace_part.finish_replacing`). Its rows are in
the order of the table, so that neighbours are read together. Parts without an epoch are people's, and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.outputs.parts.part_file import JOB, REPLACES, metadata_of, to_parquet
from framefleet.pipeline.outputs.parts.part_names import Part, new_run, part_path
from framefleet.pipeline.outputs.parts.parts import NUM_READERS, read_parts
from framefleet.pipeline.outputs.parts.seals import Hold, live_parts
from framefleet.pipeline.outputs.stores.store import Store

# As a file: some 50,000 records, read in one request. In memory they may be larger, as texts repeat.
LARGE_BYTES, MOST_BYTES_UNPACKED = 32 << 20, 256 << 20
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


def compact_records(store: Store, hold: Hold, on_rows: Callable[[int], None] = lambda num: None) -> Compacted:
    """Merge small parts. Only for who holds the output; seal it then, as parts were replaced.

    on_rows: is called with how many records were looked at. Raises JobError for a part that is damaged.
    """
    parts = live_parts(store)
    sizes = {path: stored.size for path, stored in store.details(RECORDS).items()}
    small = [part for part in parts if part.epoch and sizes.get(part.path, 0) < LARGE_BYTES // 2]
    run, num_groups, num_gone, num_rows = new_run(hold.epoch), 0, 0, 0
    for group in _groups(store, small, sizes):
        if len(group.parts) > 1:
            num_groups, num_gone = num_groups + 1, num_gone + len(group.parts)
            _merge(store, group, run=run, number=num_groups, hold=hold)
            num_rows += group.num_rows
            on_rows(num_rows)
    return Compacted(num_before=len(parts), num_after=len(parts) - num_gone + num_groups, num_rows=num_rows)


def _groups(store: Store, parts: Sequence[Part], sizes: Mapping[str, int]) -> Iterator[_Group]:
    """Yield neighbours of equal columns that make a large part together."""
    group = _Group()
    tables = read_parts(store, [part.path for part in parts], None)
    for part, table in zip(parts, tables, strict=True):
        if not group.takes(part, table, sizes[part.path]):
            yield group
            group = _Group()
            group.takes(part, table, sizes[part.path])
    yield group


def _merge(store: Store, group: _Group, *, run: str, number: int, hold: Hold) -> None:
    paths = [part.path for part in group.parts]
    table = pa.concat_tables(group.tables)
    table = table.take(pc.sort_indices(pc.list_element(table["row_indices"], 0)))
    content = to_parquet(table, {**_job_in(store, paths), REPLACES: "\n".join(paths)})
    hold.check()
    store.create(part_path(RECORDS, run, number, content), content)
    hold.check()
    store.delete_many(paths)


def _job_in(store: Store, paths: list[str]) -> dict[str, str]:
    """Return job.json as the newest of these parts has it, as metadata; {} where none does."""
    with ThreadPoolExecutor(NUM_READERS) as readers:
        found = [metadata.get(JOB) for metadata in readers.map(partial(metadata_of, store), paths)]
    return next(({JOB: job} for job in reversed(found) if job), {})
