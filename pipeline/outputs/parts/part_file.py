"""A part as a file: from rows to Parquet and back, even if somebody else wrote it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from framefleet.pipeline.errors import SCARCE, JobError, NoFile, StoreError, command
from framefleet.pipeline.outputs.layout import CLAIM
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, ROW_ID
from framefleet.pipeline.outputs.parts.seals import part_of
from framefleet.pipeline.outputs.stores.store import Store

MAX_PART_ROWS = 1_000_000  # of parts that people have put together
MAX_PART_BYTES = 1 << 30  # of a part, and of what is read of it
TEXTS = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
_BYTES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)
# Metadata: job.json; the parts that this one replaces, one per line.
JOB, REPLACES = "framefleet.job", "framefleet.replaces"

# Columns that take twice as long to read if there is a dictionary of their values.
_DISTINCT = {"row_id", "row_index", "row_indices", "uri", "path", "media_sha256", "frames_sha256"}
# Columns that may be null, but are in every part of records/ or rows/.
_ALWAYS_THERE = {"row_index", *(field.name for field in FIRST_FIELDS if field.nullable)}


def storage_of(schema: pa.Schema) -> dict[str, Any]:
    """Return options of `ParquetWriter`: columns whose values all differ have no dictionary."""
    return {"compression": "zstd", "use_dictionary": [name for name in schema.names if name not in _DISTINCT]}


def to_parquet(table: pa.Table, metadata: Mapping[str, str]) -> bytes:
    """Return the file of a part. metadata: of the file, besides its schema."""
    table = table.replace_schema_metadata()  # from a part that was read: it would be stored twice
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, **storage_of(table.schema)) as file:
        file.write_table(table)
        file.add_key_value_metadata(dict(metadata))
    return buffer.getvalue()


def is_readable(content: bytes) -> bool:
    """Return whether `read_part` would return all columns of a part."""
    try:
        _parsed(content, None)
    except (pa.ArrowException, ValueError):
        return False
    return True


def metadata_of(store: Store, path: str) -> dict[str, str]:
    """Return what a part says about itself: `JOB`, `REPLACES`. Raises JobError as `read_part`."""
    return columns_of(store, path)[1]


def columns_of(store: Store, path: str) -> tuple[pa.Schema, dict[str, str]]:
    """Return the columns of a part, and its metadata as `metadata_of`. Raises JobError as `read_part`."""
    footer = _footer(store, path)
    values = {name: (footer.metadata or {}).get(name.encode()) for name in (JOB, REPLACES)}
    texts = {name: value.decode("utf-8", "replace") for name, value in values.items() if value is not None}
    return footer.schema.to_arrow_schema().remove_metadata(), texts


def num_rows_of(store: Store, path: str) -> int:
    """Return how many rows a Parquet file of an output has. Raises JobError as `read_part`."""
    return _footer(store, path).num_rows


def _footer(store: Store, path: str) -> Any:
    content = part_content(store, path)
    try:
        return pq.read_metadata(pa.BufferReader(content))
    except MemoryError:  # Arrow's is an ArrowException too, and says nothing about the part
        raise
    except (pa.ArrowException, OSError) as error:
        raise _not_ours(store, path, str(error)) from error


def read_part(store: Store, path: str, fields: pa.Schema | None) -> pa.Table:
    """Return columns of a part, with the types in `fields`. Raises JobError if the part is not ours.

    fields: None: all columns, as they are. If their field is text, lists and structs become JSON, and bytes
    that are not UTF-8 are escaped. A missing column is null, if it may be null and is not one that every part
    has.
    """
    content = part_content(store, path)
    try:
        return _parsed(content, fields)
    except MemoryError:  # as above
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _not_ours(store, path, str(error)) from error


def part_content(store: Store, path: str) -> bytes:
    """Return the bytes of a part. Raises JobError if its name says that they should be others."""
    try:
        content = store.read(path, MAX_PART_BYTES + 1)
    except FileNotFoundError as error:
        problem = f"{store.url_of(path)} is gone: it was replaced while it was read"
        raise JobError(problem, "run the same command again") from error
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
    problem = f"{store.url_of(path)} is damaged: {reason}"
    return JobError(problem, f"run {command('repair', store.url_of(''))}; or put the part back as it was")


def _not_ours(store: Store, path: str, reason: str) -> JobError:
    problem = f"{store.url_of(path)} is not a part that framefleet wrote: {reason}"
    return JobError(problem, "move it out of the output; rows that only it named are then rendered again")


def _parsed(content: bytes, fields: pa.Schema | None) -> pa.Table:
    metadata = pq.read_metadata(pa.BufferReader(content))
    there = metadata.schema.to_arrow_schema()
    fields = there if fields is None else fields
    names = []
    for field in fields:
        count = there.names.count(field.name)
        if count != 1 and (count or not field.nullable or field.name in _ALWAYS_THERE):
            raise ValueError(f"it has no column {field.name!r}, or several")
        names += [field.name] * count
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    # Texts that are stored as dictionaries: the file may have one long text once for a million cells.
    shared = {chunk.path_in_schema for chunk in chunks if chunk.has_dictionary_page}
    file = pq.ParquetFile(
        pa.BufferReader(content),
        read_dictionary=[name for name in names if name in shared and there.field(name).type in TEXTS],
        metadata=metadata,
    )
    if metadata.num_rows > MAX_PART_ROWS:
        raise ValueError(f"it has more than {MAX_PART_ROWS:,} rows")
    # Pages without compression, and values of eight bytes: a page of a few bytes can hold ten million equal
    # numbers of a list.
    # A column may have a dot in its name, which looks like one inside another.
    prefixes = (*(f"{name}." for name in names),)
    is_chosen = {path: f"{path}.".startswith(prefixes) for path in {chunk.path_in_schema for chunk in chunks}}
    chosen = [chunk for chunk in chunks if is_chosen[chunk.path_in_schema]]
    _check_bytes(sum(chunk.total_uncompressed_size for chunk in chosen))
    _check_bytes(8 * sum(chunk.num_values for chunk in chosen))
    # Threads of Arrow would let go of `content` later, and end the process if Python is ending then.
    # https://github.com/apache/arrow/issues/33975
    table = file.read(names, use_threads=False).select(names)
    _check_bytes(sum(map(_unpacked_bytes, table.columns)))
    columns = [
        _as_text(table[field.name], field) if field.name in names else pa.nulls(len(table), field.type)
        for field in fields
    ]
    table = pa.table(columns, fields.names).cast(fields)  # refuses nulls where a record has none
    table.validate(full=True)  # text is UTF-8
    # Without rows, `pc.all` is null: rows/ has an empty part if all of its rows are left out.
    if "row_id" in names and pc.all(pc.match_substring_regex(table["row_id"], ROW_ID)).as_py() is False:
        raise ValueError("its row_ids are not all 32 hex digits")
    return table


def _as_text(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """Return a column as it is, or what Arrow does not cast to text as such if `field` is text."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_odd = pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType)
    if field.type != pa.string() or not (is_odd or any(is_bytes(kind) for is_bytes in _BYTES)):
        return column
    cells = map(_text, column.drop_null().to_pylist())
    texts = [next(cells) if is_there else None for is_there in column.is_valid().to_pylist()]
    return pa.chunked_array([texts], pa.string())


def _text(cell: Any) -> str:
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "backslashreplace")
    return json.dumps(cell, default=str, ensure_ascii=False) if isinstance(cell, list | dict) else str(cell)


def _check_bytes(size_bytes: int) -> None:
    if size_bytes > MAX_PART_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_PART_BYTES:,} bytes")


def _unpacked_bytes(column: pa.ChunkedArray) -> int:
    """Return what the cells of a column take, each by itself."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = (pc.binary_length(chunk.dictionary).take(chunk.indices) for chunk in column.chunks)
    return sum(pc.sum(of_chunk).as_py() or 0 for of_chunk in lengths)


def is_unreadable(store: Store, error: StoreError) -> bool:
    """Return whether reading failed for one file alone: job.json can be read, and waiting would not help."""
    cause = error.__context__  # its `__cause__` is hidden where the text holds secrets
    is_scarce = isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno in SCARCE)
    if error.may_pass or error.kind == "full" or is_scarce or isinstance(error, NoFile):
        return False
    try:
        store.read(CLAIM)
    except (FileNotFoundError, StoreError):
        return False
    return True
