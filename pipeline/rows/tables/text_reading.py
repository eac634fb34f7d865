"""From the content of a CSV, TSV or JSONL file to a streaming reader: unpacked, its separator found."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
from collections.abc import Mapping
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.rows.tables.encodings import marked_encoding, to_utf_8
from framefleet.pipeline.rows.tables.json_lines import JsonLines

_AHEAD = 1 << 16  # bytes in which the header ends, or is searched for no further
SEPARATORS = {"csv": ",", "tsv": "\t"}


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
            column_types=schema and {name: pa.string() for name in schema.names},  # see `csv_cells.typed`
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
