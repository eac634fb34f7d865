"""rows/: one line for each row of the table that can be rendered: its place, its row_id, what it carries.

Rows with equal row_id are one clip with one record, and that has the carried columns of the first alone. Here
each keeps its own. It is the table's image and nothing more: a part holds the same positions whatever the
table, and is replaced as a whole, so that no kill doubles a line. Parts that are as they should be stay.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.sources.integrity import sha256_of
from framefleet.pipeline.outputs.layout import ROWS
from framefleet.pipeline.outputs.parts.part_file import storage_of
from framefleet.pipeline.outputs.parts.records import row_schema
from framefleet.pipeline.outputs.parts.seals import Hold
from framefleet.pipeline.outputs.stores.store import Store, read_json
from framefleet.pipeline.rows.sweeps.sweep import RowSource
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.record_columns import Carried

_ROW_ID_LENGTH = 32
_ROWS_IN_PART = 8192  # positions; by way of a temporary file, as rows may be megabytes
# What each part was written as, and the stamp that the store gave it. Hidden from readers of the folder.
_NOTES = f"{ROWS}/_written.json"
_NOTED = TypeAdapter(dict[str, tuple[str, str]])


def write_rows(resolved: ResolvedJob, index: RowIndex, hold: Hold, *, start: int = 0) -> None:
    """Make rows/ say what the table says. index: of the whole table. Only for who holds the output.

    start: the first row that may not be there as it should.
    """
    store, carried = resolved.store, resolved.rows.carried
    schema = row_schema(carried.schema(resolved.table.schema))
    noted, found = _noted(store), store.details(ROWS)
    sound = {path for path, (_, stamp) in noted.items() if path in found and found[path].stamp == stamp}
    kept = {_part(number) for number in range(start // _ROWS_IN_PART)}
    digests = {path: noted[path][0] for path in kept & sound}
    is_changed = False
    pieces_from = _pieces(resolved.table, len(kept) * _ROWS_IN_PART)
    for number, pieces in groupby(pieces_from, key=lambda piece: piece[0] // _ROWS_IN_PART):
        path = _part(number)
        lines = (_lines(first, batch, index, carried, schema) for first, batch in pieces)
        with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
            file = Path(folder, "part.parquet")
            digests[path] = _written(file, lines, schema)
            if path in sound and noted[path][0] == digests[path]:
                continue
            hold.check()
            if not is_changed:  # first of all: what it notes is true at any time
                store.delete(_NOTES)
            is_changed = True
            store.upload(path, file)
    beyond = [path for path in found if path not in digests and path != _NOTES and path not in kept]
    if beyond or is_changed:
        hold.check()
        store.delete_many(beyond)
        found = store.details(ROWS)
        notes = {path: (digest, found[path].stamp) for path, digest in digests.items() if path in found}
        store.write(_NOTES, canonical_json(notes).encode())


def sound_parts(store: Store) -> dict[str, str]:
    """Return the parts with the digest of each; {} where one is not as it was written, or is not known."""
    noted, found = _noted(store), store.details(ROWS)
    parts = {path for path in found if path.endswith(".parquet")}
    is_sound = parts == noted.keys() and all(found[path].stamp == stamp for path, (_, stamp) in noted.items())
    return {path: digest for path, (digest, _) in noted.items()} if is_sound else {}


def distrust_parts(store: Store) -> None:
    """Have the next run check every row and write every part anew: one does not say what the table says."""
    store.delete(_NOTES)


def _part(number: int) -> str:
    return f"{ROWS}/part-{number:06d}.parquet"


def _pieces(table: RowSource, start: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the table's batches and the position of the first row of each, none of two parts.

    start: of a part, the first to yield.
    """
    for first, batch in table.batches(start=start):
        if first < start:
            batch = batch.slice(min(start - first, batch.num_rows))
            first = start
        while batch.num_rows:
            count = _ROWS_IN_PART - first % _ROWS_IN_PART
            yield first, batch.slice(0, count)
            first, batch = first + count, batch.slice(count)


def _lines(
    first: int, batch: pa.RecordBatch, index: RowIndex, carried: Carried, schema: pa.Schema
) -> pa.Table:
    rows = index.row_ids_in(first, batch.num_rows)
    is_whole = len(rows) == batch.num_rows
    found = [batch] if is_whole else [batch.slice(position - first, 1) for position, _ in rows]
    mine = pa.Table.from_batches(map(carried.of, found), carried.schema(batch.schema))
    places = pa.py_buffer(array("q", [position for position, _ in rows]))
    return pa.Table.from_arrays(
        [
            pa.Array.from_buffers(pa.int64(), len(rows), [None, places]),
            _texts("".join(row_id for _, row_id in rows), _ROW_ID_LENGTH),
            *mine.columns,
        ],
        schema=schema,
    )


def _texts(joined: str, length: int) -> pa.Array:
    """Return texts of one length. By buffers: to turn lists into arrays imports pandas."""
    ends = pa.py_buffer(array("i", range(0, len(joined) + 1, length)))
    return pa.Array.from_buffers(
        pa.string(), len(joined) // length, [None, ends, pa.py_buffer(joined.encode())]
    )


def _written(file: Path, lines: Iterator[pa.Table], schema: pa.Schema) -> str:
    """Write a part; return the SHA-256 of its file."""
    with pq.ParquetWriter(file, schema, **storage_of(schema)) as part:
        for table in lines:
            part.write_table(table)
    return sha256_of(file)


def _noted(store: Store) -> Mapping[str, tuple[str, str]]:
    try:
        return read_json(store, _NOTES, _NOTED)
    except (FileNotFoundError, JobError):  # then all parts are written anew
        return {}
