"""From the content of a text file to the lines on which rows of it stand, as an editor counts them."""

from __future__ import annotations

import csv
import io
import lzma
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

from framefleet.pipeline.rows.tables.formats import TableFormat
from framefleet.pipeline.rows.tables.text_reading import SEPARATORS, separator_of, unpacked

# What is wrong with the file is reported by whoever reads its rows: here they are looked up for messages.
_UNREADABLE = (csv.Error, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)
_MAX_CELL = 1 << 26  # characters; Arrow reads rows of a megabyte


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
        for line in _starts_in_json(text) if kind == "jsonl" else _starts_in_csv(text, kind):
            if num_rows in wanted:
                found[num_rows] = line
            num_rows += 1
            if len(found) == len(wanted):
                break
    return found, num_rows


def _starts_in_json(content: Any) -> Iterator[int]:
    return (number for number, line in enumerate(content, start=1) if line.strip())


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
