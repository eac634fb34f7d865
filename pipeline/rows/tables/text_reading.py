"""From the content of a CSV, TSV or JSONL file to a streaming reader, and to the lines that rows stand in."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.model.specs.refusal import Problem
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.rows.tables.formats import TableFormat, marked_encoding, to_utf_8
from framefleet.pipeline.rows.tables.json_lines import JsonLines
from framefleet.pipeline.rows.tables.row_cells import OddCells, another_type

_AHEAD = 1 << 16  # bytes in which the header ends, or is searched for no further
SEPARATORS = {"csv": ",", "tsv": "\t"}
# What is wrong with the file is reported by whoever reads its rows: here they are looked up for messages.
_UNREADABLE = (csv.Error, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)
_MAX_CELL = 1 << 26  # characters; Arrow reads rows of a megabyte


def unpacked(content: io.RawIOBase, compression: str | None) -> Any:
    """Return the text of a file, which can be looked at ahead by `peek`."""
    buffered = io.BufferedReader(content, 1 << 20)
    if compression == ".gz":
        return gzip.GzipFile(fileobj=buffered)
    if compression == ".bz2":
        return bz2.BZ2File(buffered)
    return lzma.LZMAFile(buffered) if compression == ".xz" else buffered


def text_reader(
    content: Any, kind: str, schema: pa.Schema | None, *, arguments: Mapping[str, ArgumentKind], name: str
) -> Any:
    """Return a streaming reader; `schema` fixes the types, or else they are inferred.

    content: from `unpacked`. arguments: columns whose cells are checked later, with their kind. Raises
    TableError for a file that is empty, or no UTF-8.
    """
    _check_encoding(_beginning(content), name)
    if kind == "jsonl":
        return JsonLines(content, schema, arguments)
    return _csv_reader(content, schema, separator_of(content, SEPARATORS[kind]))


def _beginning(content: Any) -> bytes:
    found: bytes = content.peek(_AHEAD)[:_AHEAD]
    return found


def _csv_reader(content: IO[bytes], schema: pa.Schema | None, separator: str) -> Any:
    return pa.csv.open_csv(
        content,
        read_options=pa.csv.ReadOptions(use_threads=False),  # only then do its errors name the row
        parse_options=pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        # an empty cell is null, a quoted one is empty text
        convert_options=pa.csv.ConvertOptions(
            column_types=schema and {name: pa.string() for name in schema.names},  # see `typed`
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=False,  # see `readable`: one such cell is one refused row
        ),
    )


def _check_encoding(beginning: bytes, name: str) -> None:
    if not beginning.removeprefix(codecs.BOM_UTF8).strip():
        raise TableError(f"{name} is empty", "add rows, or give another table")
    if encoding := marked_encoding(beginning):
        raise TableError(f"{name} is {encoding}", to_utf_8(encoding, name))


def separator_of(content: Any, own: str) -> str:
    """Return what stands between the names of the header: spreadsheets of half of Europe write semicolons.

    content: of a file that is not empty, from `unpacked`.
    """
    header = _beginning(content).splitlines()[0].decode("utf-8", "replace")
    return own if own in header else next((other for other in ";\t" if other in header), own)


def typed(batch: pa.RecordBatch, schema: pa.Schema) -> tuple[pa.RecordBatch, OddCells]:
    """Return the columns of `schema`, and what is wrong with cells that are null in it.

    By Arrow's casts from text, which read numbers, dates and times as its reader of CSV does. That one gives
    up the whole file for one cell.
    """
    odd: OddCells = {}
    columns = []
    for field in schema:
        texts = batch.column(field.name)
        column, misfits = _cast(texts, field.type)
        columns.append(column)
        for offset in misfits:
            shown = texts[offset].as_buffer().to_pybytes().decode("utf-8", "replace")
            odd.setdefault(offset, []).append(Problem(field.name, shown, another_type(field.type)))
    return pa.RecordBatch.from_arrays(columns, schema=schema), odd


def _cast(texts: pa.Array, kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Return the cells, and the offsets of those that are null in it as they do not fit."""
    if kind == pa.string():
        return texts, []
    try:
        return _parsed(texts, kind), []
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return pa.nulls(1, kind), [0]
    half = len(texts) // 2
    first, odd = _cast(texts[:half], kind)
    second, more = _cast(texts[half:], kind)
    return pa.concat_arrays([first, second]), [*odd, *(half + offset for offset in more)]


def _parsed(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(texts)
    if not pa.types.is_time(kind):
        return trimmed.cast(kind)
    on_a_day = pc.binary_join_element_wise("1970-01-01 ", trimmed, "")  # there is no cast from text to times
    return on_a_day.cast(pa.timestamp(kind.unit)).cast(kind)


def lines_in(
    content: io.RawIOBase, kind: TableFormat, compression: str | None, rows: Collection[int]
) -> tuple[dict[int, int], int]:
    """Return the first line of each of the rows, from 1, and how many rows were passed until all were found.

    rows: from 0; those that are not there, or lie behind what cannot be read, are left out.
    """
    wanted, found = set(rows), dict[int, int]()
    text = unpacked(content, compression)
    num_rows = 0
    with suppress(*_UNREADABLE):
        of_json = (number for number, line in enumerate(text, start=1) if line.strip())
        for line in of_json if kind == "jsonl" else _starts_in_csv(text, kind):
            if num_rows in wanted:
                found[num_rows] = line
            num_rows += 1
            if len(found) == len(wanted):
                break
    return found, num_rows


def _starts_in_csv(content: Any, kind: TableFormat) -> Iterator[int]:
    """Yield the first line of each row below the header; lines without anything are not rows."""
    csv.field_size_limit(_MAX_CELL)
    separator = separator_of(content, SEPARATORS[kind])
    text = io.TextIOWrapper(content, encoding="utf-8-sig", errors="replace", newline="")
    reader = csv.reader(text, delimiter=separator)
    last, is_below = 0, False
    for cells in reader:
        if cells and is_below:
            yield last + 1
        is_below, last = is_below or bool(cells), reader.line_num
