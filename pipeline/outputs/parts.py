"""In: rows, one at a time. Out: Parquet parts in the store; and back.

A row is done if and only if a part under `records/` names it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.json_file import not_ours
from framefleet.pipeline.outputs.records import (
    FIRST_FIELDS,
    LATER_FIELDS,
    RECORDS,
    ROW_ID,
    Record,
    record_of,
)
from framefleet.pipeline.outputs.store import Store

_MAX_ROWS = 256  # about half a megabyte a part, and 4,000 parts for a million rows
MAX_CARRIED_BYTES = 64 << 20  # of carried columns, where rows are megabytes
MAX_AGE_S = 5.0  # what a crash may cost: rows finished within this time are rendered again
NUM_READERS = 8  # parts read at once on resume: a store answers in tens of milliseconds, whatever the size
PARTS_AHEAD = 64  # parts whose row_ids may wait to be taken: 16,384 of them, about a megabyte
MAX_PART_ROWS = 1_000_000  # of parts that people have put together
_MAX_BYTES = 1 << 30  # of a part, and of what is read of it
TEXTS = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
_ROW_ID = pa.schema([FIRST_FIELDS.field("row_id")])


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
        is_full = len(self._values) >= _MAX_ROWS or self._num_bytes >= MAX_CARRIED_BYTES
        return is_full or now - self._waiting_since >= MAX_AGE_S

    def flush(self) -> str | None:
        """Write the rows that wait as one part; return its path, or None when there are none.

        If this raises, the rows still wait, and the part may be stored all the same (a lost answer): trying
        again is safe, since it goes by the same name.
        """
        if not self._values:
            return None
        path = f"{_prefix(self._folder, self._run)}{self._num_parts + 1:06d}.parquet"
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


def _prefix(folder: str, run: str) -> str:
    return f"{folder}/part-{run}-"


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
            yield from readers.map(partial(_row_ids, store), some)


def find_record(store: Store, row_id: str) -> Record:
    """Return the record of one row. Raises JobError if there is none."""
    for path in store.list(RECORDS):
        if row_id in _row_ids(store, path):
            table = _read_part(store, path, FIRST_FIELDS, LATER_FIELDS)
            (found,) = rows_of(
                table.filter(pc.equal(table["row_id"], row_id)).slice(0, 1), store.url_of(path)
            )
            return record_of(found, store.url_of(path))
    raise JobError(
        f"{store.url_of(RECORDS)} has no record of row {row_id}",
        "take a row_id from a record or a clip's name",
    )


def read_records(
    store: Store, folder: str = RECORDS, fields: pa.Schema = FIRST_FIELDS, *, maybe: pa.Schema = LATER_FIELDS
) -> pa.Table:
    """Return columns of all parts of a folder as one table: for outputs that fit in memory.

    fields: columns that must be there. maybe: others, null where a part has none of them.
    """
    parts = [_read_part(store, path, fields, maybe) for path in store.list(folder)]
    return pa.concat_tables(parts, promote_options="default") if parts else fields.empty_table()


def rows_of(table: pa.Table, where: str) -> list[dict[str, Any]]:
    """Return the rows of what was read as Python has them. where: for messages."""
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
    except (ValueError, OverflowError) as error:  # a time beyond Python's
        raise not_ours(where, str(error)) from error
    return rows


def parts_of_run(store: Store, folder: str, *, run: str) -> list[str]:
    """Return the parts that one driver wrote."""
    return [path for path in store.list(folder) if path.startswith(_prefix(folder, run))]


def drop_rows(store: Store, path: str, row_ids: Collection[str]) -> None:
    """Write a part anew without these rows, in one step; a part without any other goes."""
    if not set(row_ids) & set(_row_ids(store, path)):
        return
    table = _read_part(store, path, None)
    is_left = pc.invert(pc.is_in(table["row_id"], pa.array(row_ids, pa.string())))
    left = table.filter(is_left)
    if len(left):
        store.write(path, _to_parquet(left))
    else:
        store.delete(path)


def _row_ids(store: Store, path: str) -> list[str]:
    found: list[str] = _read_part(store, path, _ROW_ID)["row_id"].to_pylist()
    return found


def _read_part(store: Store, path: str, fields: pa.Schema | None, maybe: pa.Schema | None = None) -> pa.Table:
    """Return columns of a part, of the types that are asked for. Raises JobError for one that is not ours.

    fields: None is all columns, as they are.
    """
    try:
        content = store.read(path, _MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
        return _parsed(content, fields, maybe)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise JobError(
            f"{store.url_of(path)} is not a part that framefleet wrote: {error}",
            "move it out of the output; rows that only it named are then rendered again",
        ) from error


def _parsed(content: bytes, fields: pa.Schema | None, maybe: pa.Schema | None) -> pa.Table:
    there = pq.read_schema(pa.BufferReader(content))
    names = there.names
    fields = there if fields is None else fields
    fields = pa.schema([*fields, *(field for field in maybe or () if field.name in names)])
    if wrong := [name for name in fields.names if names.count(name) != 1]:
        raise ValueError(f"it has no column {wrong[0]!r}, or several")
    texts = [name for name in fields.names if there.field(name).type in TEXTS]
    # As dictionaries: of a million cells of one long text the file holds one.
    file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts)
    if file.metadata.num_rows > MAX_PART_ROWS:
        raise ValueError(f"it has more than {MAX_PART_ROWS:,} rows")
    _check_bytes(max(_stored_bytes(file.metadata, fields.names)))
    table = file.read(fields.names).select(fields.names)
    _check_bytes(sum(map(_unpacked_bytes, table.columns)))
    table = table.cast(fields)  # refuses nulls where a record has none
    table.validate(full=True)  # text is UTF-8
    if "row_id" in fields.names and not pc.all(pc.match_substring_regex(table["row_id"], ROW_ID)).as_py():
        raise ValueError("its row_ids are not all 32 hex digits")
    return table


def _check_bytes(size_bytes: int) -> None:
    if size_bytes > _MAX_BYTES:
        raise ValueError(f"it unpacks to more than {_MAX_BYTES:,} bytes")


def _stored_bytes(metadata: pq.FileMetaData, names: list[str]) -> tuple[int, int]:
    """Return what some columns are without compression: their pages, and values of eight bytes.

    A page of a few bytes holds ten million equal numbers of a list.
    """
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    columns = (group.column(i) for group in groups for i in range(group.num_columns))
    chosen = [column for column in columns if column.path_in_schema.split(".")[0] in names]
    return sum(c.total_uncompressed_size for c in chosen), 8 * sum(c.num_values for c in chosen)


def _unpacked_bytes(column: pa.ChunkedArray) -> int:
    """Return the most that the cells of a column take, each by itself."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    longest = [pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0 for chunk in column.chunks]
    return sum(length * len(chunk) for length, chunk in zip(longest, column.chunks, strict=True))
