"""From the bytes of a CSV or TSV file to its separator, its header, and the bytes with quote marks checked.

Arrow accepts anything after a closing quote mark, and a mark that is text at the start of a cell swallows
what follows, even whole rows. So bytes reach Arrow only if every mark has one meaning.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from typing import Any

import numpy as np

from framefleet.pipeline.errors import TableError

_SAMPLE = 1 << 20  # bytes; they decide about separator, header and quoting
MAX_ROW = 1 << 20  # bytes; Arrow does not read longer rows
_LINE_ENDS = b"\r\n"
_SEP_LINE = re.compile(rb"sep=([^\r\n])\r?\n", re.IGNORECASE)  # Excel's line for the separator
_LINE_END = re.compile(rb"[\r\n]")
_SHOWN = 40  # bytes of a cell in a message


class CsvText(io.RawIOBase):
    """A CSV file as Arrow reads it, without a byte order mark and a line `sep=;`.

    content: at its start. own: the separator by the file's extension. header: the cells of the first row;
    bytes that are not UTF-8 are escaped. num_hidden: number of lines that are left out before it. is_quoted:
    whether quote marks enclose cells; in a TSV, which does not need them, they may all be text.

    Raises TableError, also from `read`, if a quote mark is ambiguous.
    """

    def __init__(self, content: Any, own: str, name: str) -> None:
        self._content, self._name = content, name
        self._sample: bytes = content.read(_SAMPLE)
        self._is_whole = len(self._sample) < _SAMPLE
        beginning = self._sample.removeprefix(codecs.BOM_UTF8)
        marked = _SEP_LINE.match(beginning)
        self.num_hidden = int(bool(marked))
        self._sample = beginning[marked.end() :] if marked else beginning
        # In half of Europe, spreadsheets separate cells with semicolons.
        first_line = self._sample.lstrip(_LINE_ENDS)[:MAX_ROW].splitlines()[:1]
        header = first_line[0].decode("utf-8", "replace") if first_line else ""
        likely = own if own in header else next((other for other in ";\t|" if other in header), own)
        self.separator = marked[1].decode("latin-1") if marked else likely
        self.is_quoted = self.separator != "\t" or not self._is_unquoted()
        text = io.StringIO(self._sample.decode("utf-8", "surrogateescape"), newline="")
        try:
            self.header: list[str] = next(filter(None, self._reader(text)), [])
        except csv.Error:  # an unclosed quote mark: `_QuoteCheck` refuses it, and says where
            self.header = header.split(self.separator)
        self._check = _QuoteCheck(self)

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1, /) -> bytes:
        part, self._sample = self._sample[:count], self._sample[count:]
        if not part:
            part = self._content.read(count)
        self._check.take(part)
        return part

    def readinto(self, buffer: Any) -> int:
        part = self.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def rows(self) -> Any:
        """Return Python's own reader of rows, which counts lines."""
        rest = io.BufferedReader(self, _SAMPLE)
        text = io.TextIOWrapper(rest, encoding="utf-8", errors="replace", newline="")
        return self._reader(text)

    def _reader(self, text: Any) -> Any:
        if self.is_quoted:
            return csv.reader(text, delimiter=self.separator)
        return csv.reader(text, delimiter=self.separator, quoting=csv.QUOTE_NONE)

    def _is_unquoted(self) -> bool:
        """Return whether the sample only makes sense if quote marks are text, and then has no odd row."""
        lines = [line for line in self._sample.splitlines() if line]
        lines = lines if self._is_whole else lines[:-1]
        if len({line.count(b"\t") for line in lines}) != 1 or _DOUBLED.search(self._sample):
            return False
        self.is_quoted, self.header = True, []  # without a header, a cell may continue in the next lines
        check = _QuoteCheck(self)
        try:
            check.take(self._sample)
            if self._is_whole:
                check.take(b"")
        except TableError:
            return True
        return False


# A cell that only makes sense if quote marks are not text.
_DOUBLED = re.compile(rb'(?:\A|(?<=[\t\r\n]))"[^\t\r\n]*""[^\t\r\n]*"(?=[\t\r\n]|\Z)')


class _QuoteCheck:
    """Takes a file's bytes in order, and raises TableError if a quote mark is ambiguous."""

    def __init__(self, text: CsvText) -> None:
        self._name, self._is_quoted = text._name, text.is_quoted
        self._separator, self._num_columns = text.separator.encode("latin-1"), len(text.header)
        ends = re.escape(self._separator) + _LINE_ENDS
        self._quoted = re.compile(rb'(?:\A|(?<=[%b]))"((?:[^"]++|"")*+)("?)' % ends)
        self._spaced = re.compile(rb'(?:\A|(?<=[%b])) +"(?:[^"\r\n]++|"")*+" *(?=[%b]|\Z)' % (ends, ends))
        self._ends = self._separator + _LINE_ENDS
        self._may_be_next = np.isin(np.arange(256), [*self._ends, ord('"')])  # by byte: may be next to a mark
        self._rest, self._line = b"", 1 + text.num_hidden  # an unfinished row, and its first line

    def take(self, part: bytes) -> None:
        """part: the next bytes; b"" at the end of the file."""
        text = self._rest + part
        if b'"' not in text:
            done = _rows_end(text)
        elif self._is_quoted:
            plain_end = self._plain_end(text) if part else None
            done = self._checked(text, is_end=not part) if plain_end is None else plain_end
        else:
            done = _rows_end(text)
            if mixed := _DOUBLED.search(text, 0, done or len(text)):
                raise self._refused(text, mixed.start(), "it doubles its quote marks, and others do not")
        self._line += _num_lines(text, done)
        self._rest = text[done:]

    def _plain_end(self, text: bytes) -> int | None:
        """Return the same as `_checked`, but twenty times as fast; None for unusual files.

        In usual ones, each mark opens or closes a cell or doubles another, and no cell has line breaks.
        """
        content = np.frombuffer(text, np.uint8)
        marks, lines = np.flatnonzero(content == ord('"')), np.flatnonzero(content == ord("\n"))
        if not len(lines) or (np.searchsorted(marks, lines) % 2).any():
            return None
        marks = marks[marks < lines[-1]]
        begins, closes = marks[0::2], marks[1::2]
        around = content[np.concatenate((begins[begins > 0] - 1, closes + 1))]
        if not self._may_be_next[around].all():
            return None
        return int(lines[-1]) + 1

    def _checked(self, text: bytes, *, is_end: bool) -> int:
        """Return where the first unfinished row begins."""
        row = end = 0
        for cell in self._quoted.finditer(text):
            self._check_spaces(text, end, cell.start())
            row = _rows_end(text, end, cell.start()) or row
            end = cell.end()
            follows = text[end : end + 1]
            if not (is_end or (cell[2] and follows)):  # its end is not read yet
                if len(text) - cell.start() > MAX_ROW:
                    raise self._refused(text, cell.start(), "it is not closed within 1 MiB")
                return row
            if not cell[2]:
                raise self._refused(text, cell.start(), "its quote mark is never closed")
            if follows and follows not in self._ends:
                raise self._refused(text, cell.start(), "text follows its closing quote mark", end)
            if _LINE_END.search(cell[1]):
                last = _LINE_END.search(text, end)
                if not last and not is_end:
                    return row
                if self._are_rows(text[row : last.start() if last else len(text)]):
                    why = "it continues in the next lines, but each of them looks like a row"
                    raise self._refused(text, cell.start(), why)
        rows_end = _rows_end(text, end)
        self._check_spaces(text, end, len(text) if is_end else rows_end)
        return rows_end or row

    def _check_spaces(self, text: bytes, start: int, end: int) -> None:
        """Raise TableError for quote marks after spaces: for some programs, such marks are text."""
        if spaced := self._spaced.search(text, start, end):
            raise self._refused(text, spaced.start(), "there are spaces before its quote mark")

    def _are_rows(self, lines: bytes) -> bool:
        """Return whether each line would be a row of the table if quote marks were text."""
        rows = [line.split(self._separator) for line in lines.splitlines()]
        return self._num_columns > 1 and all(
            len(cells) == self._num_columns and not any(cell[:1] == b" " for cell in cells[1:])
            for cells in rows
        )

    def _refused(self, text: bytes, start: int, why: str, end: int = 0) -> TableError:
        line = self._line + _num_lines(text, start)
        cell = text[start : start + _SHOWN].splitlines()[0].decode("utf-8", "replace")
        is_escaped = end > 1 and text[end - 2 : end - 1] == b"\\"
        return TableError(
            f"{self._name} line {line}: the cell that begins with {cell!r} can be read in two ways: {why}",
            'write quote marks inside of quoted cells twice (in Spark: `.option("escape", "\\"")`)'
            if is_escaped
            else 'if quote marks are text, quote the whole cell and write them twice, as """Stop"" it says"; '
            "or save the table as Parquet or JSONL",
        )


def _rows_end(text: bytes, start: int = 0, end: int | None = None) -> int:
    """Return where the last line ends; 0 if none does. A carriage return alone ends a line too."""
    end = len(text) if end is None else end
    # A carriage return as the very last byte may be the first half of a line's end.
    return max(text.rfind(b"\n", start, end), text.rfind(b"\r", start, min(end, len(text) - 1))) + 1


def _num_lines(text: bytes, end: int) -> int:
    return text.count(b"\n", 0, end) + text.count(b"\r", 0, end) - text.count(b"\r\n", 0, end)
