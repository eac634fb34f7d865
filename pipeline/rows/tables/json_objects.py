"""From a file of JSON to its objects, each with its line: one in each line, an array, or a table by columns.

An array, and objects that are spread over lines, are cut into objects by their braces, some megabytes at a
time. One object of columns, as pandas' `to_json` writes it, becomes the objects of its rows.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.rows.tables.formats import likely_encoding

MAX_LINE = 16 << 20
BOM = b"\xef\xbb\xbf"
_STEP = 1 << 20
_BEGINNING = 256  # bytes with the first brace or bracket
# A string, a brace or a bracket; the mark alone of a string whose end is still to come.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\][{}]', re.DOTALL)
_BETWEEN = b" \t\r\n,"
_SHOWN = 40
_PLAIN = 15  # digits that every number holds

JsonObject = dict[str, Any]
_Text = tuple[int, bytes | JsonObject]  # the first line of an object, from 1; what stands there


class WrittenNumber(float):
    """A number that is written with an exponent, or with more digits than each number holds."""

    text: str

    @property
    def is_exact(self) -> bool:
        """Whether it is what the text says: 0.1 is, though no binary number is a tenth."""
        written = Decimal(self.text)
        return self - self == 0 and written in (Decimal(repr(float(self))), Decimal(float(self)))


def objects_in(file: Any) -> Iterator[tuple[int, JsonObject]]:
    """Yield (bytes, object). file: from `unpacked`. Raises ValueError with the line that is wrong."""
    for line, text in _texts(file):
        yield (len(text), _object(text, line)) if isinstance(text, bytes) else (_PLAIN * len(text), text)


def lines_of_json(file: Any) -> Iterator[int]:
    """Yield the line of each object."""
    return (line for line, _ in _texts(file))


def _texts(file: Any) -> Iterator[_Text]:
    if file.peek(_BEGINNING)[:_BEGINNING].removeprefix(BOM).lstrip().startswith(b"["):
        yield from _cut(_chunks(file), is_array=True)
        return
    lines = _lines(file)
    first = next(lines, None)
    if first and first[1].startswith(b"{") and first[1].endswith((b"{", b"[", b",")):
        lines = _cut(itertools.chain([b"\n" * (first[0] - 1) + first[1] + b"\n"], _chunks(file)))
        first = next(lines, None)
    second = next(lines, None)
    if first and not second and (rows := _rows_of_columns(*first)):
        yield from ((first[0], row) for row in rows)
        return
    yield from itertools.chain(filter(None, (first, second)), lines)


def _lines(file: Any) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        _check_length(line, number)
        text = line.removeprefix(BOM) if number == 1 else line
        if text := text.strip():
            yield number, text


def _chunks(file: Any) -> Iterator[bytes]:
    while chunk := file.read(_STEP):
        yield chunk


def _cut(chunks: Iterable[bytes], *, is_array: bool = False) -> Iterator[tuple[int, bytes]]:
    """Yield objects that follow each other, with nothing but commas between them."""
    rest, line, is_open, is_closed = b"", 1, not is_array, False
    for chunk in itertools.chain(chunks, [b""]):
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
                elif mark == b"]" and is_array and not is_closed:
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
    if rest.strip(_BETWEEN) or (is_array and not is_closed):
        raise ValueError(f"line {line}: what begins there has no end; the file may be cut short")


def _check_between(text: bytes, line: int) -> None:
    if other := text.strip(_BETWEEN):
        line += text.count(b"\n", 0, text.index(other))
        shown = other[:_SHOWN].decode("utf-8", "replace")
        raise ValueError(f'line {line}: {shown!r} is not an object, e.g. {{"prompt": "..."}}')


def _check_length(text: bytes, line: int) -> None:
    if len(text) > MAX_LINE:
        raise ValueError(f"line {line} is longer than {MAX_LINE:,} bytes")


def _rows_of_columns(line: int, text: bytes | JsonObject) -> list[JsonObject] | None:
    """Return the rows of a file's only object, where it is a table: as pandas writes it, or a dict of lists.

    Raises ValueError where it is one that can be read by column and by row.
    """
    values = _object(text, line) if isinstance(text, bytes) else text
    columns = [*values.values()]
    match values:  # of `to_json(orient="split")` and `to_json(orient="table")`
        case {"columns": [*names], "data": [*rows]} if all(isinstance(row, list) for row in rows):
            return [dict(zip(names, row, strict=True)) for row in rows]
        case {"schema": {}, "data": [*rows]} if all(isinstance(row, dict) for row in rows):
            return rows
    if columns and all(isinstance(one, list) and len(one) == len(columns[0]) for one in columns):
        has_texts = any(isinstance(cell, str) for column in columns for cell in column)  # as each prompt is
        return (
            [dict(zip(values, row, strict=True)) for row in zip(*columns, strict=True)] if has_texts else None
        )
    if not columns or not all(isinstance(one, dict) and one.keys() == columns[0].keys() for one in columns):
        return None
    if all(label.isdecimal() for label in columns[0]):  # the index, which numbers the rows
        return [{name: column[label] for name, column in values.items()} for label in columns[0]]
    if all(label.isdecimal() for label in values):
        return columns
    raise ValueError(f"line {line}: it is an object of objects, which may be its columns or its rows")


def _object(text: bytes, line: int) -> JsonObject:
    try:
        values = parse_json(text.decode("utf-8", "surrogateescape"), _DECODER)
    except ValueError as error:
        raise ValueError(f"line {line}: {error}{_encoding_of(text)}") from None
    if not isinstance(values, dict):
        raise ValueError(f'line {line} is not an object, e.g. {{"prompt": "..."}}')
    return values


def _number(text: str) -> float:
    number = float(text)
    if len(text) <= _PLAIN and "e" not in text and "E" not in text:
        return number
    if repr(number) == text and "e" not in text:
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


def _encoding_of(line: bytes) -> str:
    """Return what is said of a line that is not UTF-8: in Shift-JIS and GB18030 texts hold backslashes."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return f"; it is not UTF-8, and likely {likely_encoding(line) or 'no text'}"
    return ""
