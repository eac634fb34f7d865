"""A part as a file: rows to Parquet and back, where anybody may have written it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from framefleet.pipeline.errors import JobError, NoFile, StoreError
from framefleet.pipeline.outputs.layout import CLAIM
from framefleet.pipeline.outputs.parts.part_names import part_of
from framefleet.pipeline.outputs.parts.records import ROW_ID
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.text import command

MAX_PART_ROWS = 1_000_000  # of parts that people have put together
MAX_PART_BYTES = 1 << 30  # of a part, and of what is read of it
TEXTS = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
# Metadata: job.json; the parts that this one is in place of, one in a line.
JOB, REPLACES = "framefleet.job", "framefleet.replaces"

# Columns that take twice as long to read if there is a dictionary of their values.
_DISTINCT = {"row_id", "row_index", "row_indices", "uri", "path", "media_sha256", "frames_sha256"}


def storage_of(schema: pa.Schema) -> dict[str, Any]:
    """Return options of `ParquetWriter`: columns whose values all differ have no dictionary."""
    return {"compression": "zstd", "use_dictionary": [name for name in schema.names if name not in _DISTINCT]}


def to_parquet(table: pa.Table, metadata: Mapping[str, str]) -> bytes:
    """Return the file of a part. metadata: of the file, besides its schema."""
    table = table.replace_schema_metadata()  # of a part that was read: it would be kept twice
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, **storage_of(table.schema)) as file:
        file.write_table(table)
        file.add_key_value_metadata(dict(metadata))
    return buffer.getvalue()


def metadata_of(store: Store, path: str) -> dict[str, str]:
    """Return what a part says of itself: `JOB`, `REPLACES`. Raises JobError as `read_part`."""
    return _told_by(_footer(store, path))


def columns_of(store: Store, path: str) -> tuple[pa.Schema, dict[str, str]]:
    """Return the columns of a part, and what `metadata_of` does. Raises JobError as `read_part`."""
    footer = _footer(store, path)
    return footer.schema.to_arrow_schema().remove_metadata(), _told_by(footer)


def _footer(store: Store, path: str) -> pq.FileMetaData:
    content = part_content(store, path)
    try:
        return pq.read_metadata(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise _not_ours(store, path, str(error)) from error


def _told_by(footer: pq.FileMetaData) -> dict[str, str]:
    told = {name: (footer.metadata or {}).get(name.encode()) for name in (JOB, REPLACES)}
    return {name: text.decode("utf-8", "replace") for name, text in told.items() if text is not None}


def read_part(store: Store, path: str, fields: pa.Schema | None, maybe: pa.Schema | None = None) -> pa.Table:
    """Return columns of a part, of the types that are asked for. Raises JobError for one that is not ours.

    fields: None is all columns, as they are. Lists and structs that are asked for as text come as JSON.
    """
    content = part_content(store, path)
    try:
        return _parsed(content, fields, maybe)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _not_ours(store, path, str(error)) from error


def part_content(store: Store, path: str) -> bytes:
    """Return the bytes of a part. Raises JobError where they are not those that its name says."""
    try:
        content = store.read(path, MAX_PART_BYTES + 1)
    except FileNotFoundError as error:
        raise JobError(
            f"{store.url_of(path)} is gone: it was replaced while it was read",
            "run the same command again",
        ) from error
    except OSError as error:
        raise _not_ours(store, path, str(error)) from error
    except StoreError as error:
        if not is_unreadable(store, error):
            raise
        raise _damaged(store, path, error.problem) from error
    if len(content) > MAX_PART_BYTES:
        raise _not_ours(store, path, f"it has more than {MAX_PART_BYTES:,} bytes")
    if (part := part_of(path)) and not part.is_of(content):
        raise _damaged(store, path, "these are not the bytes that framefleet wrote under this name")
    return content


def _damaged(store: Store, path: str, reason: str) -> JobError:
    return JobError(
        f"{store.url_of(path)} is damaged: {reason}",
        f"run {command('repair', store.url_of(''))}; or put the part back as it was",
    )


def _not_ours(store: Store, path: str, reason: str) -> JobError:
    return JobError(
        f"{store.url_of(path)} is not a part that framefleet wrote: {reason}",
        "move it out of the output; rows that only it named are then rendered again",
    )


def _parsed(content: bytes, fields: pa.Schema | None, maybe: pa.Schema | None) -> pa.Table:
    metadata = pq.read_metadata(pa.BufferReader(content))
    there = metadata.schema.to_arrow_schema()
    names = there.names
    fields = there if fields is None else fields
    fields = pa.schema([*fields, *(field for field in maybe or () if field.name in names)])
    if wrong := [name for name in fields.names if names.count(name) != 1]:
        raise ValueError(f"it has no column {wrong[0]!r}, or several")
    texts = {name for name in fields.names if there.field(name).type in TEXTS}
    # Those that are, as dictionaries: of a million cells of one long text the file holds one.
    shared = _with_dictionary(metadata)
    file = pq.ParquetFile(
        pa.BufferReader(content),
        read_dictionary=[name for name in texts if name in shared],
        metadata=metadata,
    )
    if metadata.num_rows > MAX_PART_ROWS:
        raise ValueError(f"it has more than {MAX_PART_ROWS:,} rows")
    _check_bytes(max(_stored_bytes(metadata, fields.names)))
    table = file.read(fields.names).select(fields.names)
    _check_bytes(sum(map(_unpacked_bytes, table.columns)))
    table = pa.table([_as_text(table[field.name], field) for field in fields], fields.names)
    table = table.cast(fields)  # refuses nulls where a record has none
    table.validate(full=True)  # text is UTF-8
    # Of no rows `pc.all` says null: rows/ has a part without any where all of its rows are left out.
    if (
        "row_id" in fields.names
        and pc.all(pc.match_substring_regex(table["row_id"], ROW_ID)).as_py() is False
    ):
        raise ValueError("its row_ids are not all 32 hex digits")
    return table


def _as_text(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """Return a column as it is, or lists and structs as JSON where text is wanted."""
    if not (pa.types.is_nested(column.type) and field.type == pa.string()):
        return column
    cells = (json.dumps(cell, default=str, ensure_ascii=False) for cell in column.drop_null().to_pylist())
    told = [next(cells) if is_there else None for is_there in column.is_valid().to_pylist()]
    return pa.chunked_array([told], pa.string())


def _check_bytes(size_bytes: int) -> None:
    if size_bytes > MAX_PART_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_PART_BYTES:,} bytes")


def _with_dictionary(metadata: pq.FileMetaData) -> set[str]:
    """Return the columns that have a dictionary of their values."""
    return {column.path_in_schema for column in _chunks(metadata) if column.has_dictionary_page}


def _stored_bytes(metadata: pq.FileMetaData, names: list[str]) -> tuple[int, int]:
    """Return what some columns are without compression: their pages, and values of eight bytes.

    A page of a few bytes holds ten million equal numbers of a list.
    """
    chosen = [chunk for chunk in _chunks(metadata) if chunk.path_in_schema.split(".")[0] in names]
    return sum(c.total_uncompressed_size for c in chosen), 8 * sum(c.num_values for c in chosen)


def _chunks(metadata: pq.FileMetaData) -> Iterator[pq.ColumnChunkMetaData]:
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    return (group.column(number) for group in groups for number in range(group.num_columns))


def _unpacked_bytes(column: pa.ChunkedArray) -> int:
    """Return the most that the cells of a column take, each by itself."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    longest = [pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0 for chunk in column.chunks]
    return sum(length * len(chunk) for length, chunk in zip(longest, column.chunks, strict=True))


def is_unreadable(store: Store, error: StoreError) -> bool:
    """Tell whether reading failed of one file alone: job.json can be read, and waiting would not help."""
    if error.may_pass or isinstance(error, NoFile):
        return False
    try:
        store.read(CLAIM)
    except (FileNotFoundError, StoreError):
        return False
    return True
