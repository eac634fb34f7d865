"""In: rows, one at a time. Out: Parquet parts in the store; and back.

A row is done if and only if a part under `records/` names it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from framefleet.pipeline.errors import JobError, StoreError
from framefleet.pipeline.outputs.records import RECORD_FIELDS, RECORDS
from framefleet.pipeline.outputs.store import Store

MAX_ROWS = 256  # about half a megabyte a part, and 4,000 parts for a million rows
MAX_BYTES = 64 << 20  # of carried columns, where rows are megabytes
MAX_AGE_S = 5.0  # what a crash may cost: rows finished within this time are rendered again
NUM_READERS = 8  # parts read at once on resume: a store answers in tens of milliseconds, whatever the size
PARTS_AHEAD = 64  # parts whose row_ids may wait to be taken: 16,384 of them, about a megabyte


class PartWriter:
    """Collects rows and writes them as parts of a folder; only what `flush` wrote is committed."""

    def __init__(self, store: Store, folder: str, schema: pa.Schema, *, run: str) -> None:
        """run: names the parts, so it must be new for every driver; letters, digits, dashes."""
        if not re.fullmatch(r"[A-Za-z0-9-]+", run):
            raise JobError(f"run is {run!r}", "use letters, digits and dashes")
        self._store, self._folder, self._schema, self._run = store, folder, schema, run
        self._carried: list[pa.RecordBatch] = []
        self._values: list[Mapping[str, Any]] = []
        self._waiting_since: float | None = None
        self._num_parts = self._num_bytes = 0

    @property
    def rows_waiting(self) -> int:
        return len(self._values)

    def add(self, carried_row: pa.RecordBatch | None, values: Mapping[str, Any]) -> None:
        """Take one row: its carried columns (one row; None if there are none), and ours."""
        if carried_row is not None:
            self._carried.append(carried_row)
            self._num_bytes += carried_row.nbytes
        self._values.append(values)

    def due(self, now: float) -> bool:
        """Tell whether to flush: enough rows or bytes wait, or have since MAX_AGE_S. now: rising seconds.

        The age counts from the first call that saw a row waiting, so call it after every `add` or at least
        once a second.
        """
        if not self._values:
            return False
        if self._waiting_since is None:
            self._waiting_since = now
        is_full = len(self._values) >= MAX_ROWS or self._num_bytes >= MAX_BYTES
        return is_full or now - self._waiting_since >= MAX_AGE_S

    def flush(self) -> str | None:
        """Write the rows that wait as one part; return its path, or None when there are none.

        If this raises, the rows still wait, and the part may be stored all the same (a lost answer): trying
        again is safe, since it goes by the same name.
        """
        if not self._values:
            return None
        path = f"{self._folder}/part-{self._run}-{self._num_parts + 1:06d}.parquet"
        self._store.create(path, _to_parquet(self._table()))
        self._num_parts += 1
        self._carried, self._values, self._waiting_since, self._num_bytes = [], [], None, 0
        return path

    def _table(self) -> pa.Table:
        ours = self._values[0].keys()
        carried = pa.schema([field for field in self._schema if field.name not in ours])
        if len(carried):
            table = pa.Table.from_batches(self._carried, carried).combine_chunks()
        else:
            table = pa.table({})
        columns = [
            _column([values[field.name] for values in self._values], field.type)
            if field.name in ours
            else table.column(field.name)
            for field in self._schema
        ]
        return pa.table(columns, schema=self._schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # a lone surrogate in some message: worth a question mark, not the part
        return pa.array([value and value.encode("utf-8", "replace").decode() for value in values], kind)


def _to_parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def committed_row_ids(store: Store) -> Iterator[list[str]]:
    """Yield the row_ids of every part, part by part; memory does not grow with their number."""
    paths = iter(store.list(RECORDS))
    with ThreadPoolExecutor(NUM_READERS) as readers:
        while some := list(islice(paths, PARTS_AHEAD)):
            for table in readers.map(partial(_read_part, store, columns=["row_id"]), some):
                yield table["row_id"].to_pylist()


def find_record(store: Store, row_id: str) -> dict[str, Any]:
    """Return the record of one row, carried columns included; JobError if there is none."""
    for path in store.list(RECORDS):
        if row_id in _read_part(store, path, columns=["row_id"])["row_id"].to_pylist():
            table = _read_part(store, path)
            found: dict[str, Any] = table.filter(pc.equal(table["row_id"], row_id)).to_pylist()[0]
            return found
    raise JobError(
        f"{store.url_of(RECORDS)} has no record of row {row_id}",
        "take a row_id from a record or a clip's name",
    )


def read_records(store: Store, folder: str = RECORDS) -> pa.Table:
    """Return all records, or failures, as one table: for outputs that fit in memory."""
    parts = [_read_part(store, path) for path in store.list(folder)]
    return pa.concat_tables(parts, promote_options="permissive") if parts else RECORD_FIELDS.empty_table()


def _read_part(store: Store, path: str, columns: list[str] | None = None) -> pa.Table:
    content = store.read(path)
    try:
        return pq.read_table(pa.BufferReader(content), columns=columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreError(
            f"{store.url_of(path)} is not a part that framefleet wrote: {error}",
            "move it out of the output; rows that only it named are then rendered again",
        ) from error
