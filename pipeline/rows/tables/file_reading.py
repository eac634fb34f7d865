"""From the content of one Parquet, CSV, TSV or JSONL file to its schema and its record batches in order."""

from __future__ import annotations

import io
import lzma
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.outputs.parts.records import are_records
from framefleet.pipeline.plugin import files_of_plugins
from framefleet.pipeline.rows.tables import formats, row_cells
from framefleet.pipeline.rows.tables.csv_text import MAX_ROW
from framefleet.pipeline.rows.tables.row_cells import ODD_CELLS, with_odd_cells
from framefleet.pipeline.rows.tables.text_reading import lines_in, text_reader, unpacked

# The limit for a row too. Batches are passed on as a whole, and waiting rows keep theirs in memory.
MAX_BATCH_BYTES = 32 << 20
# Rows that are read at once from Parquet: with a dictionary, a page of a kilobyte may hold many large rows.
STEP_ROWS = 128
MAX_COLUMNS = 10_000
MAX_NAME = 256  # characters of a column's name
_CSV_ROW = re.compile(r"Row #(\d+): ?")
_HEAD_BYTES = 256
_UNPACK_ERRORS = (EOFError, OSError, lzma.LZMAError, zlib.error)
_BROKEN = (*_UNPACK_ERRORS, pa.ArrowException, ValueError, OverflowError)
_CUT_FIX = "write the file again; it may be cut short"
_BEYOND_A_BLOCK = "straddles two block boundaries"  # Arrow's words
_VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}  # few functions of Arrow take views
_OF_RUN = re.compile(r"[0-9a-f]{16}\.parquet")  # the table of one run


@dataclass(frozen=True, slots=True, kw_only=True)
class FileToRead:
    """One file of a table.

    name: for messages; its extension says how the file is compressed. arguments: columns whose cells are
    checked later, with the kind that they should have. is_made: framefleet wrote it, maybe with `ODD_CELLS`.
    """

    content: io.RawIOBase
    name: str
    format: formats.TableFormat
    arguments: Mapping[str, ArgumentKind]
    is_made: bool = False


def may_lack_columns(path: str, schema: pa.Schema) -> bool:
    """Return whether a file may lack columns of its table, as it is from another run or version."""
    folder, _, name = path.rpartition("/")
    is_of_run = files_of_plugins().get(folder.rpartition("/")[2]) == "rows" and _OF_RUN.fullmatch(name)
    return are_records(schema) or bool(is_of_run)


def schema_of(file: FileToRead) -> tuple[pa.Schema, int | None]:
    """Return the schema and, for Parquet, the number of rows. Raises TableError."""
    with explained(file):
        if file.format == "parquet":
            if file.content.seekable() and not file.content.seek(0, io.SEEK_END):
                raise TableError(f"{file.name} is empty", "add rows, or use another table")
            if mistake := formats.mistaken_file(_beginning(file), file.name, own=formats.PARQUET):
                raise mistake
            parquet = pa.parquet.ParquetFile(file.content)
            schema, num_rows = parquet.schema_arrow, parquet.metadata.num_rows
            _check_meanings(parquet, file)
            if file.is_made:
                schema = pa.schema([field for field in schema if field.name != ODD_CELLS])
        else:
            schema, num_rows = _text_reader(file, None).schema, None
        if len(schema) > MAX_COLUMNS:
            raise TableError(f"{file.name} has more than {MAX_COLUMNS:,} columns", "leave some of them out")
        if ODD_CELLS in schema.names:
            raise TableError(f"{file.name} has a column {ODD_CELLS!r}", "rename it")
        if long := [name for name in schema.names if len(name) > MAX_NAME]:
            raise TableError(
                f"{file.name}: the name of the column {long[0][:40]!r}... is longer than "
                f"{MAX_NAME} characters",
                "shorten it",
            )
        settled = pa.schema([_settled(field, file) for field in schema])
        _check_storable(settled, file)
        return settled, num_rows


def batches_of(
    file: FileToRead, schema: pa.Schema, *, batch_rows: int, first_row: int, skip: int = 0
) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches with the columns of `schema`. Raises TableError.

    first_row: the table's row at which the file begins, for messages. skip: how many rows to skip, only for
    Parquet.
    """
    seen = first_row + skip
    reader = _reader(file, schema, skip)
    waiting: list[pa.RecordBatch] = []
    while True:
        with explained(file, first_row=first_row, num_read=seen - first_row):
            batch = next(reader, None)
        if batch is not None:
            seen += batch.num_rows
            waiting.append(batch)
        rows, size = sum(part.num_rows for part in waiting), sum(part.nbytes for part in waiting)
        if waiting and (batch is None or rows >= batch_rows or size >= MAX_BATCH_BYTES):
            with explained(file, first_row=first_row, num_read=seen - rows - first_row):
                joined = row_cells.without_empty(pa.concat_batches(waiting))
            waiting = []
            yield from _parts(joined, seen - rows, file)
        if batch is None:
            return


def _parts(batch: pa.RecordBatch, first_row: int, file: FileToRead) -> Iterator[pa.RecordBatch]:
    """Yield a batch in parts that are not too large."""
    if batch.nbytes <= MAX_BATCH_BYTES:
        yield batch
    elif batch.num_rows > 1:
        half = batch.num_rows // 2
        yield from _parts(batch.slice(0, half), first_row, file)
        yield from _parts(batch.slice(half), first_row + half, file)
    else:
        sizes = {name: column.nbytes for name, column in zip(batch.schema.names, batch.columns, strict=True)}
        raise TableError(
            f"{file.name}: row {first_row} takes {batch.nbytes:,} bytes, most of them in the column "
            f"{max(sizes, key=lambda name: sizes[name])!r}, but the limit is {MAX_BATCH_BYTES:,}",
            "leave that column out of the table",
        )


def _reader(file: FileToRead, schema: pa.Schema, skip: int) -> Iterator[pa.RecordBatch]:
    if file.format == "parquet":
        # pre_buffer reads whole row groups ahead: a file with one row group would be in memory completely.
        parquet = pa.parquet.ParquetFile(file.content, pre_buffer=False, buffer_size=1 << 20)
        groups = [*range(parquet.num_row_groups)]
        while groups and skip >= (length := parquet.metadata.row_group(groups[0]).num_rows):
            skip -= length
            del groups[0]
        for batch in parquet.iter_batches(STEP_ROWS, row_groups=groups, use_threads=False):
            names = [name for name in batch.schema.names if not (file.is_made and name == ODD_CELLS)]
            is_part = may_lack_columns(file.name, schema) and {*names} <= {*schema.names}
            if names != schema.names and not is_part:
                raise TableError(f"{file.name} has just changed", "run the same command again")
            skip, rows = max(0, skip - batch.num_rows), batch.slice(skip)
            # Without dictionaries, see `_settled`, so that the size of each row is known. Missing columns are
            # null.
            columns = [
                rows.column(field.name).cast(field.type)
                if field.name in names
                else pa.nulls(len(rows), field.type)
                for field in schema
            ]
            chosen = pa.RecordBatch.from_arrays(columns, schema=schema) if columns else rows.select([])
            has_odd = len(names) < len(rows.schema)
            yield with_odd_cells(chosen, row_cells.odd_cells(rows)) if has_odd else chosen
        return
    bad_texts = row_cells.BadTexts(file.name)
    for batch, odd in _text_reader(file, schema):
        bad_texts.tell(batch, odd)
        yield with_odd_cells(batch, odd)


def _text_reader(file: FileToRead, schema: pa.Schema | None) -> Any:
    """Return a streaming reader of CSV, TSV or JSONL. schema: fixes the types; None infers them."""
    return text_reader(
        unpacked(file.content, file.name), file.format, schema, arguments=file.arguments, name=file.name
    )


def _check_meanings(parquet: pa.parquet.ParquetFile, file: FileToRead) -> None:
    """Raise TableError for types that only their writer understands: Arrow returns the stored values.

    E.g. a pandas Period is stored as the number of months since 1970, and an INTERVAL as twelve bytes.
    """
    columns = parquet.schema
    kinds = {
        columns.column(number).path.partition(".")[0]: "INTERVAL"
        for number in range(len(columns))
        if columns.column(number).converted_type == "INTERVAL"
    }
    for field in parquet.schema_arrow:
        own = (field.metadata or {}).get(b"ARROW:extension:name")
        if own and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
            kinds[field.name] = own.decode("utf-8", "replace")[:MAX_NAME]
    for name, kind in kinds.items():
        problem = f"{file.name}: the column {name!r} has the type {kind}, which records cannot store"
        raise TableError(problem, "write it as text, or as numbers or dates, or leave it out of the table")


def _check_storable(schema: pa.Schema, file: FileToRead) -> None:
    """Raise TableError for columns that records cannot store: now, and not at the first clip's commit."""
    for columns in (schema, *(pa.schema([field]) for field in schema)):
        buffer = io.BytesIO()
        try:
            pa.parquet.write_table(columns.empty_table(), buffer)
            pa.parquet.ParquetFile(buffer)
            for field in columns:
                if pa.types.is_timestamp(field.type):
                    pa.scalar(0, field.type).as_py()  # fails for an unknown time zone
            if columns is schema:
                return
        except (pa.ArrowException, OSError, ValueError, KeyError, NotImplementedError) as error:
            if columns is schema:
                problem = str(error)
                continue
            content = f"the column {columns[0].name!r} has the type {str(columns[0].type)[:MAX_NAME]}"
            problem = f"{file.name}: {content}, which records cannot store: {error}"
            raise TableError(problem, "leave it out of the table, or write it as text") from None
    raise TableError(f"{file.name}: records cannot store its columns: {problem}", "leave some of them out")


def _settled(field: pa.Field, file: FileToRead) -> pa.Field:
    """Return the field with a type that fits later cells too, and added files without the column."""
    field = plain_field(field.remove_metadata().with_nullable(True))
    if file.format == "parquet":
        return field
    is_argument = field.name in file.arguments
    return field.with_type(pa.string()) if is_argument or pa.types.is_null(field.type) else field


def plain_field(field: pa.Field) -> pa.Field:
    """Return the field without dictionaries and views, also in its lists, structs and maps."""
    kind = field.type
    if pa.types.is_dictionary(kind):
        return plain_field(field.with_type(kind.value_type))
    if pa.types.is_struct(kind):
        return field.with_type(pa.struct(map(plain_field, kind)))
    if pa.types.is_map(kind):
        return field.with_type(
            pa.map_(plain_field(kind.key_field), plain_field(kind.item_field), kind.keys_sorted)
        )
    if pa.types.is_fixed_size_list(kind):
        return field.with_type(pa.list_(plain_field(kind.value_field), kind.list_size))
    if pa.types.is_list(kind):
        return field.with_type(pa.list_(plain_field(kind.value_field)))
    if pa.types.is_large_list(kind):
        return field.with_type(pa.large_list(plain_field(kind.value_field)))
    return field.with_type(_VIEWS.get(kind, kind))


@contextmanager
def explained(file: FileToRead, *, first_row: int = 0, num_read: int = 0) -> Iterator[None]:
    """Turn errors of Arrow and decompressors into TableError. num_read: rows of the file read before."""
    where = f" from row {first_row + num_read} on" if num_read and file.format == "parquet" else ""
    try:
        yield
    except TableError:
        raise
    except (UnicodeDecodeError, UnicodeEncodeError) as error:  # of names; cells are checked later
        name = error.object if isinstance(error.object, bytes) else formats.raw_bytes(error.object)
        why = formats.refused_text(name, formats.likely_encoding(name), file.name)
        shown = name[:MAX_NAME].decode("utf-8", "replace")
        problem = f"the name of a column is {shown!r}, but {why.reason}"
        raise TableError(f"{file.name}: {problem}", why.fix) from None
    except (MemoryError, pa.ArrowMemoryError):
        raise TableError(
            f"{file.name} cannot be read{where}: reading some of its rows takes more than 2 GiB",
            "write it with smaller row groups and pages, and without huge cells",
        ) from None
    except _BROKEN as error:
        message, fix = _numbered(str(error), file, first_row), _fix(file, error)
        if _BEYOND_A_BLOCK in message:
            message, fix = f"a row is longer than {MAX_ROW:,} bytes", "shorten it, or save the table as JSONL"
        raise TableError(f"{file.name} cannot be read{where}: {message}", fix) from error


def _fix(file: FileToRead, error: Exception) -> str:
    """Return the fix for a file that cannot be read; its first bytes may show that it is another format."""
    if isinstance(error, NotImplementedError):
        return "write that column as another type"
    if file.format != "parquet" and isinstance(error, _UNPACK_ERRORS):
        return _CUT_FIX
    if file.format == "jsonl":
        return "write one JSON object in each line, or one array of objects"
    if file.format != "parquet":
        return "quote cells that hold commas, quotes or line breaks; the first line must be the header"
    head = _beginning(file).strip()
    if head and head.decode("utf-8", "replace").split("\n")[0].isprintable():
        return "it is text: rename it to end in its real format, e.g. .csv or .jsonl"
    return _CUT_FIX


def _beginning(file: FileToRead) -> bytes:
    if not file.content.seekable():
        return b""
    file.content.seek(0)
    return file.content.read(_HEAD_BYTES) or b""


def _numbered(message: str, file: FileToRead, first_row: int) -> str:
    """Return Arrow's message about a CSV row with the row's number in the table, and its line in the file."""
    match = _CSV_ROW.search(message)
    if match is None:
        return message
    row = int(match[1]) - 2  # Arrow counts from 1, with the header
    line = None
    if file.content.seekable():
        file.content.seek(0)
        line = lines_in(file.content, file.format, file.name, [row])[0].get(row)
    place = f"row {first_row + row}" + (f" (line {line})" if line else "")
    return f"{place}: {_CSV_ROW.sub('', message).removeprefix('CSV parse error: ')}"
