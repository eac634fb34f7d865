"""From a JSON or JSONL file to its objects with their lines, and to record batches of one schema.

Arrow's own JSON reader is not used: some lines, e.g. `null` or deep nesting, end the process. An array is cut
into objects at their braces, a megabyte at a time.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import partial
from itertools import chain
from typing import IO, Any

import pyarrow as pa

from framefleet.pipeline.errors import Problem, Refused
from framefleet.pipeline.guards.json_text import CANONICAL, EXACT_FLOATS, parse_json
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.rows.tables.formats import likely_encoding, raw_bytes
from framefleet.pipeline.rows.tables.row_cells import OddCells, another_type

MAX_LINE = 16 << 20
BOM = b"\xef\xbb\xbf"
_STEP = 1 << 20
_BEGINNING = 256  # bytes with the first brace or bracket
# A string, a brace or a bracket; of a string without an end, only the quote mark.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\][{}]', re.DOTALL)
_BETWEEN = b" \t\r\n,"
_SHOWN = 40
_PLAIN = 15  # digits that every float can hold

JsonObject = dict[str, Any]


class WrittenNumber(float):
    """A number that is written with an exponent, or with more digits than every float can hold."""

    text: str

    @property
    def is_exact(self) -> bool:
        """Whether it equals the text; 0.1 does, although no binary number is exactly a tenth."""
        written = Decimal(self.text)
        return self - self == 0 and written in (Decimal(repr(float(self))), Decimal(float(self)))


def texts_in(file: Any) -> Iterator[tuple[int, bytes]]:
    """Yield the number of each object's first line, from 1, and its text. file: from `unpacked`.

    Raises ValueError that names the wrong line.
    """
    if file.peek(_BEGINNING)[:_BEGINNING].removeprefix(BOM).lstrip().startswith(b"["):
        yield from _cut(iter(partial(file.read, _STEP), b""))
        return
    for number, line in enumerate(iter(partial(file.readline, MAX_LINE + 1), b""), start=1):
        _check_length(line, number)
        text = line.removeprefix(BOM) if number == 1 else line
        if text := text.strip():
            yield number, text


def _cut(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the objects of an array; only commas are allowed between them."""
    rest, line, is_open, is_closed = b"", 1, False, False
    for chunk in chain(chunks, [b""]):
        text = rest + chunk if rest else chunk.removeprefix(BOM)
        end = start = depth = 0
        for token in _TOKEN.finditer(text):
            mark = token[0]
            if mark == b'"':
                break
            if not depth:
                _check_between(text[end : token.start()], line + text.count(b"\n", 0, end))
                if mark == b"[" and not is_open:
                    is_open, end = True, token.end()
                elif mark == b"]" and not is_closed:
                    is_closed, end = True, token.end()
                elif mark == b"{" and not is_closed:
                    start, depth = token.start(), 1
                else:
                    _check_between(mark, line + text.count(b"\n", 0, token.start()))
            elif mark in b"{[":
                depth += 1
            elif mark in b"}]":
                depth -= 1
                if not depth:
                    end = token.end()
                    yield line + text.count(b"\n", 0, start), text[start:end]
        line += text.count(b"\n", 0, end)
        rest = text[end:]
        _check_length(rest, line)
    if rest.strip(_BETWEEN) or not is_closed:
        raise ValueError(f"line {line}: an object or array has no end; is the file cut off?")


def _check_between(text: bytes, line: int) -> None:
    if other := text.strip(_BETWEEN):
        line += text.count(b"\n", 0, text.index(other))
        shown = other[:_SHOWN].decode("utf-8", "replace")
        raise ValueError(f'line {line}: {shown!r} is not an object, e.g. {{"prompt": "..."}}')


def _check_length(text: bytes, line: int) -> None:
    if len(text) > MAX_LINE:
        raise ValueError(f"line {line} is longer than {MAX_LINE:,} bytes")


def _object(text: bytes, line: int) -> JsonObject:
    try:
        values = parse_json(text.decode("utf-8", "surrogateescape"), _DECODER)
    except ValueError as error:
        is_utf_8 = text.decode(errors="replace").encode() == text
        # Characters in Shift-JIS and GB18030 may contain backslashes.
        other = "" if is_utf_8 else f"; it is not UTF-8, and likely {likely_encoding(text) or 'no text'}"
        raise ValueError(f"line {line}: {error}{other}") from None
    if not isinstance(values, dict):
        raise ValueError(f'line {line} is not an object, e.g. {{"prompt": "..."}}')
    return values


def _number(text: str) -> float:
    number = float(text)
    if "e" not in text and "E" not in text and (len(text) <= _PLAIN or repr(number) == text):
        return number
    written = WrittenNumber(number)
    written.text = text
    return written


def _mapping(pairs: list[tuple[str, Any]]) -> JsonObject:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the key {twice!r} twice")
    return values


_DECODER = json.JSONDecoder(parse_float=_number, object_pairs_hook=_mapping)


INFERRED_BYTES = 1 << 20  # types are inferred from this many bytes, as Arrow does for CSV
BATCH_ROWS, BATCH_BYTES = 1024, 4 << 20
_AS_TEXT = CANONICAL | {"allow_nan": True}  # NaN is refused later, with its cell
_TEXTS: set[ArgumentKind] = {"str", "image", "video", "model"}
_SCALARS: dict[pa.DataType, set[type]] = {
    pa.string(): {str},
    pa.int64(): {int},
    pa.float64(): {int, float},
    pa.bool_(): {bool},
    pa.null(): set(),
}


class JsonLines:
    """Iterates over record batches, each with its odd cells. Raises ValueError that names the wrong line.

    schema: None infers it from the first lines: each column gets the type of most of its cells. arguments:
    columns whose cells are checked later, with their kind; they become text here, as in CSV.
    """

    def __init__(
        self, file: IO[bytes], schema: pa.Schema | None, arguments: Mapping[str, ArgumentKind]
    ) -> None:
        self._lines = _lines_in(file, arguments)
        self._first = [] if schema else list(_some(self._lines, max_bytes=INFERRED_BYTES))
        self.schema: pa.Schema = schema
        if schema is None:
            columns = _columns(values for _, values in self._first)
            if not self._first:
                raise ValueError("it has no lines")
            self.schema = pa.schema([(name, _type_of(values)) for name, values in columns.items()])

    def __iter__(self) -> Iterator[tuple[pa.RecordBatch, OddCells]]:
        lines = chain(self._first, self._lines)
        while some := list(_some(lines, max_rows=BATCH_ROWS, max_bytes=BATCH_BYTES)):
            yield _batch([values for _, values in some], self.schema)


_Line = tuple[int, JsonObject]  # (number of bytes, object)


def _lines_in(file: IO[bytes], arguments: Mapping[str, ArgumentKind]) -> Iterator[_Line]:
    """Yield lines. Cells of arguments become text as in CSV, unless the argument is a text."""
    written = {name for name, kind in arguments.items() if kind not in _TEXTS}
    for line, text in texts_in(file):
        values = _object(text, line)
        for name in written & values.keys():
            value = values[name]
            if type(value) is WrittenNumber:
                values[name] = value.text
            elif value is not None and type(value) is not str:
                values[name] = json.dumps(value, **_AS_TEXT)
        yield len(text), values


def _some(lines: Iterator[_Line], *, max_bytes: int, max_rows: int | None = None) -> Iterator[_Line]:
    """Yield lines until either limit is reached, at least one."""
    rows = size = 0
    for line in lines:
        yield line
        rows, size = rows + 1, size + line[0]
        if size >= max_bytes or rows == max_rows:
            return


def _columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return columns


def _type_of(values: Sequence[Any]) -> pa.DataType:
    """Return the type of most values; if several are equally frequent, the first."""
    kinds = Counter(_KINDS[type(value)] for value in values if value is not None)
    if not kinds:
        return pa.null()
    kind = kinds.most_common(1)[0][0]
    fitting = [value for value in values if value is not None and _KINDS[type(value)] == kind]
    if kind == "list":
        return pa.list_(_type_of([*chain.from_iterable(fitting)]))
    if kind == "object":
        return pa.struct([(name, _type_of(inner)) for name, inner in _columns(fitting).items()])
    if kind == "number":
        whole = [value for value in fitting if type(value) is int]
        # Large whole numbers are identifiers, which floats cannot hold: then the fractions are odd cells.
        are_ids = 2 * len(whole) > len(fitting) and max(map(abs, whole)) > EXACT_FLOATS
        return pa.int64() if len(whole) == len(fitting) or are_ids else pa.float64()
    return pa.string() if kind == "text" else pa.bool_()


_KINDS = {str: "text", bool: "bool", list: "list", dict: "object"}
_KINDS |= dict.fromkeys((int, float, WrittenNumber), "number")


def _batch(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> tuple[pa.RecordBatch, OddCells]:
    odd: OddCells = {}
    names = set(schema.names)
    for offset, row in enumerate(rows):
        if not names.issuperset(row):
            name = next(name for name in row if name not in names)
            odd[offset] = [Problem(name, row[name], _NO_COLUMN)]
    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        column, misfits = _column(field.type, values)
        columns.append(column)
        for offset in misfits:
            value = values[offset]
            written = value.text if isinstance(value, WrittenNumber) else value
            odd.setdefault(offset, []).append(Problem(field.name, written, _why(field.type, value)))
    if not columns:  # without arrays, from_arrays would not know the number of rows
        return pa.RecordBatch.from_struct_array(pa.array([{}] * len(rows), pa.struct([]))), odd
    return pa.RecordBatch.from_arrays(columns, schema=schema), odd


_NO_COLUMN = Refused(
    reason=f"the first {INFERRED_BYTES >> 20} MB of the table have no such key",
    fix="add that key to the first line too, with null if it is empty there",
)


def _column(kind: pa.DataType, values: list[Any]) -> tuple[pa.Array, list[int]]:
    """Return the column, and the offsets of odd cells, which are null in it because they do not fit."""
    if kind in _SCALARS:  # fast: more than a million values per second
        all_fit = set(map(type, values)) <= _SCALARS[kind] | {type(None)}
    else:
        all_fit = all(_fits(value, kind) for value in values)
    if all_fit:
        with suppress(*_UNHELD):
            return pa.array(values, kind), []
    holds = [_holds(kind, value) for value in values]
    cells = [value if is_held else None for value, is_held in zip(values, holds, strict=True)]
    odd = [offset for offset, is_held in enumerate(holds) if not is_held]
    if kind != pa.string():
        return pa.array(cells, kind), odd
    encoded = [None if value is None else raw_bytes(value) for value in cells]
    return pa.array(encoded, pa.binary()).view(pa.string()), odd


def _fits(value: Any, kind: pa.DataType) -> bool:
    """Return whether a value fits without loss: Arrow turns 1.5 into 1, and drops unknown keys."""
    if value is None:
        return True
    if pa.types.is_list(kind):
        return isinstance(value, list) and all(_fits(inner, kind.value_type) for inner in value)
    if pa.types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        return isinstance(value, dict) and all(
            name in fields and _fits(inner, fields[name]) for name, inner in value.items()
        )
    if type(value) is WrittenNumber:
        return kind == pa.float64() and value.is_exact
    return type(value) in _SCALARS.get(kind, ())


_UNHELD = (pa.ArrowException, OverflowError, UnicodeEncodeError)  # e.g. an int of 70 bits, a surrogate


def _holds(kind: pa.DataType, value: Any) -> bool:
    if kind == pa.string() or not _fits(value, kind):  # `readable` explains what is wrong with text
        return _fits(value, kind)
    with suppress(*_UNHELD):
        pa.array([value], kind)
        return True
    return False


def _why(kind: pa.DataType, value: Any) -> Refused:
    if _fits(value, kind):
        return Refused(reason="records cannot store it", fix="correct it, or write the whole column as text")
    if kind == pa.string():
        return Refused(reason="it is not a text", fix="put it in quotes")
    if type(value) is WrittenNumber:
        return Refused(reason="a number cannot store all its digits", fix="put the whole column in quotes")
    return another_type(kind)
