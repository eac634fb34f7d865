"""From one Parquet, CSV, TSV or JSONL file of a table to its schema and its record batches in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.outputs.stores.retries import Patience
from framefleet.pipeline.rows.tables import reader
from framefleet.pipeline.rows.tables.formats import TableFormat, packed
from framefleet.pipeline.rows.tables.patient_file import OpenFile, PatientFile


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """One file of a table. arguments: columns whose cells are checked later, with their kind.

    patience: with the store that it lies in.
    """

    filesystem: Any  # fsspec has no types
    path: str
    format: TableFormat | None
    arguments: Mapping[str, ArgumentKind]
    patience: Patience


def read_schema(source: TableFile) -> tuple[pa.Schema, int | None]:
    """Return the schema and, for Parquet, the number of rows. Raises TableError."""
    with _opened(source) as (file, size):
        return reader.read_file_schema(file, size, _request(source))


def open_batches(
    source: TableFile, schema: pa.Schema, *, batch_rows: int, first_row: int, skip: int = 0
) -> Iterator[pa.RecordBatch]:
    """Yield the file's batches with the columns of `schema`. first_row: of the table, for messages.

    skip: how many of its rows to leave out at the beginning; of Parquet alone.
    """
    request = {**_request(source), "batch_rows": batch_rows, "first_row": first_row, "skip": skip}
    with _opened(source) as (file, size):
        yield from reader.read_batches(file, size, request, schema)


def find_rows(source: TableFile, rows: Sequence[int]) -> tuple[dict[int, str], int]:
    """Return where each of these rows of the file stands, and how many rows were passed until all were found.

    As "line 19"; as "row 3" in Parquet, which has no lines.
    """
    if source.format == "parquet":
        num_rows = read_schema(source)[1] or 0
        return {row: f"row {row}" for row in rows if row < num_rows}, num_rows
    with _opened(source) as (file, size):
        lines, num_rows = reader.read_lines(file, size, _request(source), rows)
    return {row: f"line {line}" for row, line in lines.items()}, num_rows


def _request(source: TableFile) -> dict[str, Any]:
    _, compression = packed(source.path)
    return {
        "name": source.path,
        "format": source.format,
        "compression": compression,
        "arguments": dict(source.arguments),
    }


@contextmanager
def _opened(source: TableFile) -> Iterator[tuple[OpenFile, int | None]]:
    """Give the file and its size; None where it can only be read in order, as from some web servers."""
    try:
        file = source.patience.ride_out(lambda: source.filesystem.open(source.path, "rb"))
    except Exception as error:  # every store has errors of its own: botocore's and aiohttp's are no OSError
        raise TableError(f"{source.path} cannot be read: {error}", "check the path and the access") from error
    with file:
        try:
            size = file.seek(0, 2)
        except (OSError, ValueError):
            size = None
        yield file if size is None else PatientFile(file, source.patience), size
