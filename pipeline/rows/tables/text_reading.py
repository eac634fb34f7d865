"""From the content of a CSV, TSV or JSONL file to a streaming reader, and to the lines of its rows.

A column gets a type only if each text is how its value is written. `0001` is not a number, because 1 is
written 1; nor are `12e4567`, `+33612345678`, 2.50 and a number of twenty digits. Spaces around a number do
not count.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import functools
import gzip
import io
import itertools
import lzma
import math
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from framefleet.pipeline.errors import Problem, Refused, TableError, names_text
from framefleet.pipeline.guards.json_text import EXACT_FLOATS
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.rows.tables import formats
from framefleet.pipeline.rows.tables.csv_text import CsvText
from framefleet.pipeline.rows.tables.formats import TableFormat, mistaken_file
from framefleet.pipeline.rows.tables.json_lines import JsonLines, texts_in
from framefleet.pipeline.rows.tables.row_cells import OddCells, another_type

_AHEAD = 1 << 16  # bytes that show what a file is
SEPARATORS = {"csv": ",", "tsv": "\t"}
# (first bytes, function that unpacks the file)
_PACKED: dict[str, tuple[bytes, Any]] = {
    ".gz": (b"\x1f\x8b", gzip.open),
    ".bz2": (b"BZh", bz2.open),
    ".xz": (b"\xfd7zXZ\0", lzma.open),
}
# Ignored where lines are looked up for messages: reading the rows reports what is wrong with the file.
_UNREADABLE = (TableError, csv.Error, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)
_MAX_CELL = 1 << 26  # characters; Arrow reads rows of a megabyte


def unpacked(content: io.RawIOBase, name: str) -> Any:
    """Return the uncompressed file, which has `peek`. Raises TableError."""
    buffered, compression = io.BufferedReader(content, 1 << 20), formats.packed(name)[1]
    if compression and not (beginning := buffered.peek(_AHEAD)).startswith(_PACKED[compression][0]):
        if not beginning:
            raise TableError(f"{name} is empty", "add rows, or use another table")
        raise mistaken_file(beginning, name) or TableError(
            f"{name} is not compressed, although its name ends in {compression}", "rename it"
        )
    return _PACKED[compression][1](buffered) if compression else buffered


def text_reader(
    content: Any, kind: str, schema: pa.Schema | None, *, arguments: Mapping[str, ArgumentKind], name: str
) -> Any:
    """Return an iterator of (batch, odd cells) that has a schema. schema: None infers it.

    content: from `unpacked`. arguments: columns whose cells are checked later, with their kind. Raises
    TableError if the file is empty, not UTF-8, or not what its name says.
    """
    beginning = content.peek(_AHEAD)[:_AHEAD]
    if mistake := mistaken_file(beginning, name):
        raise mistake
    if not beginning.removeprefix(codecs.BOM_UTF8).strip():
        raise TableError(f"{name} is empty", "add rows, or use another table")
    if encoding := formats.marked_encoding(beginning):
        raise TableError(f"{name} is {encoding}", formats.to_utf_8(encoding, name))
    if kind == "jsonl":
        return JsonLines(content, schema, arguments)
    return CsvRows(CsvText(content, SEPARATORS[kind], name), schema, arguments, name)


class CsvRows:
    """Iterates over record batches of a CSV, each with its odd cells.

    schema: None infers it from the first megabyte. Columns without a name, which spreadsheets leave behind,
    are left out if they have no cells there.
    """

    def __init__(
        self, text: CsvText, schema: pa.Schema | None, arguments: Mapping[str, ArgumentKind], name: str
    ) -> None:
        # UnicodeDecodeError if they are not UTF-8
        self._names = [cell.encode("utf-8", "surrogateescape").decode() for cell in text.header]
        self._file = name
        if twice := next((own for own in self._names if own and self._names.count(own) > 1), None):
            raise TableError(f"{name} has the column {twice!r} twice", "rename one of them")
        if schema and {*filter(None, self._names)} != {*filter(None, schema.names)}:
            own, first = names_text(self._names), names_text(schema.names)
            problem = f"{name} has the columns {own}, but the first file has {first}"
            raise TableError(problem, "write all files of a table with the same columns")
        self._batches = _texts_of(text, len(self._names))
        self._first = [] if schema else list(itertools.islice(self._batches, 1))
        self.schema = schema or self._inferred(arguments)

    def __iter__(self) -> Iterator[tuple[pa.RecordBatch, OddCells]]:
        for batch in itertools.chain(self._first, self._batches):
            odd: OddCells = {}
            columns = []
            for field in self.schema:
                is_here = field.name in self._names  # a column without a name may be only in other files
                texts = batch.column(self._names.index(field.name) if is_here else 0)
                texts = texts if is_here else pa.nulls(len(batch), pa.string())
                column, misfits = typed_cells(texts, field.type)
                columns.append(column)
                for offset in misfits:
                    why = Refused(reason=another_type(field.type).reason, fix=_WRITE_TEXT)
                    odd.setdefault(offset, []).append(Problem(field.name, _shown(texts[offset]), why))
            is_carried = "" in self.schema.names  # the first of those without a name
            for place, (name, texts) in enumerate(zip(self._names, batch.columns, strict=True)):
                if not name and not (is_carried and place == self._names.index("")):
                    for offset in pc.indices_nonzero(texts.is_valid()).to_pylist():
                        problem = Problem(f"column {place + 1}", _shown(texts[offset]), _NO_NAME)
                        odd.setdefault(offset, []).append(problem)
            # One message for a line with only separators, which spreadsheets leave behind.
            if len(self._names) > 1 and all(texts.null_count for texts in batch.columns):
                is_blank = functools.reduce(pc.and_, (texts.is_null() for texts in batch.columns))
                for offset in pc.indices_nonzero(is_blank).to_pylist():
                    odd[offset] = [Problem("every cell", None, _BLANK)]
            for offset in self._headers(batch):
                odd[offset] = [Problem("the line", ",".join(self._names), _HEADER)]
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema), odd

    def _headers(self, batch: pa.RecordBatch) -> list[int]:
        """Return the rows that repeat a header, of this file or of one that was appended to it."""
        names = pa.array({text for name in self._names for text in (name, f"\ufeff{name}") if name})
        columns = [texts for name, texts in zip(self._names, batch.columns, strict=True) if name]
        if not columns or not pc.is_in(columns[0], names).true_count:  # nearly always
            return []
        is_header = functools.reduce(pc.and_, (pc.is_in(texts, names) for texts in columns))
        return pc.indices_nonzero(is_header).to_pylist()

    def _inferred(self, arguments: Mapping[str, ArgumentKind]) -> pa.Schema:
        columns = self._first[0].columns if self._first else [pa.nulls(0, pa.string())] * len(self._names)
        nameless = [
            place
            for place, (name, column) in enumerate(zip(self._names, columns, strict=True))
            if not name and column.null_count < len(column)
        ]
        if len(nameless) > 1:
            numbers = " and ".join(str(place + 1) for place in nameless[:2])
            fix = "the first line must be the header: delete the lines above it, or name these columns"
            raise TableError(f"{self._file}: the first line has no names for the columns {numbers}", fix)
        fields = [
            (name, pa.string() if name in arguments else type_of(column))
            for place, (name, column) in enumerate(zip(self._names, columns, strict=True))
            if name or place in nameless
        ]
        return pa.schema(fields)


_WRITE_TEXT = "write it like the others, or save the table as Parquet or JSONL, with the column as text"
_NO_NAME = Refused(
    reason="the header has no name for its column", fix="name the column in the header, or empty the cell"
)
_BLANK = Refused(reason="a row needs a cell", fix="delete the line")
_HEADER = Refused(
    reason="that is the header again, maybe because files were joined",
    fix="delete the line, or put the separate files into a folder and use that as the table",
)


def _shown(text: pa.Scalar) -> str:
    return text.as_buffer().to_pybytes().decode("utf-8", "replace")


def _texts_of(text: CsvText, num_columns: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows below the header. Columns have numbers as names, because names may repeat."""
    names = [f"{place}" for place in range(num_columns)]
    reader = pa.csv.open_csv(
        text,
        # Errors only name the row without threads.
        read_options=pa.csv.ReadOptions(use_threads=False, column_names=names),
        parse_options=pa.csv.ParseOptions(
            delimiter=text.separator, quote_char=text.is_quoted and '"', newlines_in_values=text.is_quoted
        ),
        # An empty cell is null, a quoted one is empty text.
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=False,  # see `readable`: one such cell is one refused row
        ),
    )
    for number, batch in enumerate(reader):
        yield batch if number else batch.slice(1)


def lines_in(
    content: io.RawIOBase, kind: TableFormat, name: str, rows: Collection[int]
) -> tuple[dict[int, int], int]:
    """Return the first line of each row, from 1, and how many rows were read until all were found.

    rows: from 0. Rows that do not exist, or come after something unreadable, are left out.
    """
    wanted, lines = set(rows), dict[int, int]()
    num_rows = 0
    with suppress(*_UNREADABLE):
        text = unpacked(content, name)
        starts = (line for line, _ in texts_in(text)) if kind == "jsonl" else _starts_in_csv(text, kind)
        for line in starts:
            if num_rows in wanted:
                lines[num_rows] = line
            num_rows += 1
            if len(lines) == len(wanted):
                break
    return lines, num_rows


def _starts_in_csv(content: Any, kind: TableFormat) -> Iterator[int]:
    """Yield the first line of each row below the header; empty lines are not rows."""
    csv.field_size_limit(_MAX_CELL)
    text = CsvText(content, SEPARATORS[kind], "")
    reader = text.rows()
    last, is_below = text.num_hidden, False
    for cells in reader:
        if cells and is_below:
            yield last + 1
        is_below, last = is_below or bool(cells), reader.line_num + text.num_hidden


# Every float keeps fifteen digits that are written like this.
_SHORT_NUMBER = r"^(?:0|-?[1-9][0-9]*|-?(?:0|[1-9][0-9]*)\.(?:0|[0-9]*[1-9]))$"
_SHORT = 16
_TRUTHS = (("true", "false"), ("True", "False"), ("TRUE", "FALSE"))  # in JSON, Python and spreadsheets
_DAY = "1970-01-01 "
_TIMES = (pa.date32(), pa.time32("s"), *map(pa.timestamp, ("s", "ms", "us", "ns")))
_TYPES = (pa.int64(), pa.bool_(), *_TIMES, pa.float64())


def type_of(texts: pa.Array) -> pa.DataType:
    """Return the first type whose values are written like all the texts; string if there is none."""
    filled = pc.ascii_trim_whitespace(texts.drop_null())
    for kind in _TYPES if len(filled) else ():
        if kind == pa.bool_():
            come_back = any(pc.all(pc.is_in(filled, pa.array(words))).as_py() for words in _TRUTHS)
        else:  # for most columns, the first text decides
            is_likely = _parsed(filled[:1], kind) is not None
            come_back = is_likely and not typed_cells(filled, kind)[1]
        if come_back:
            return kind
    return pa.string()


def typed_cells(texts: pa.Array, kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Return the values, and the offsets of texts that do not fit the type, which are null there."""
    if kind == pa.string():
        return texts, []
    texts = pc.ascii_trim_whitespace(texts)
    values = _parsed(texts, kind)
    if values is not None and pc.all(_written_as(values, texts)).as_py() is not False:
        return values, []
    if len(texts) == 1:
        return pa.nulls(1, kind), [0]
    half = len(texts) // 2
    first, odd = typed_cells(texts[:half], kind)
    second, more = typed_cells(texts[half:], kind)
    return pa.concat_arrays([first, second]), [*odd, *(half + offset for offset in more)]


def _parsed(texts: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Return the values as Arrow reads them; None if it fails. It accepts too much: `0x10` and `1e400`."""
    try:
        if not pa.types.is_time(kind):
            return texts.cast(kind)
        on_a_day = pc.binary_join_element_wise(_DAY, texts, "")  # there is no cast from text to times
        return on_a_day.cast(pa.timestamp(kind.unit)).cast(kind)
    except pa.ArrowInvalid:
        return None


def _written_as(values: pa.Array, texts: pa.Array) -> pa.Array:
    """Return for each text whether it is how its value is written."""
    if values.type == pa.bool_():
        return pc.is_in(texts, pa.array([None, *(word for words in _TRUTHS for word in words)]))
    if values.type != pa.float64():
        return pc.equal(values.cast(pa.string()), texts)
    is_plain = pc.match_substring_regex(texts, _SHORT_NUMBER)
    is_short = pc.and_(is_plain, pc.less_equal(pc.binary_length(texts), _SHORT))
    if pc.all(is_short).as_py() is not False:
        return is_short

    def is_spelled(text: str) -> bool:
        """Return whether a text is Python's spelling of a number, or a whole number that floats can hold."""
        number = float(text)
        is_whole = abs(number) <= EXACT_FLOATS and number.is_integer()
        return math.isfinite(number) and (repr(number) == text or (is_whole and text == str(int(number))))

    pairs = zip(is_short.to_pylist(), texts.to_pylist(), strict=True)
    return pa.array([short if short is not False else is_spelled(text) for short, text in pairs])
