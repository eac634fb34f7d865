"""From one file of a table to its schema and record batches, which a process of its own reads.

A store may be out of reach for minutes meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from framefleet.pipeline.errors import FramefleetError, StoreError, TableError
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.guards.sandbox import Ended, Sandboxes
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.outputs.stores.retries import Patience
from framefleet.pipeline.outputs.stores.store_errors import FIXES, in_a_line, trouble_of
from framefleet.pipeline.rows.tables.formats import TableFormat, packed
from framefleet.pipeline.rows.tables.reader_process import (
    BATCH,
    END,
    LINES,
    QUESTION,
    READ,
    REFUSED,
    SCHEMA,
    UNKNOWN,
)

# A batch is some megabytes, and whoever reads on asks for more bytes all the time.
_READERS = Sandboxes("framefleet.pipeline.rows.tables.reader_process", max_silence_s=120.0)


class OpenFile(Protocol):
    """As much of a file as readers of tables use."""

    def tell(self) -> int: ...
    def seek(self, offset: int, /) -> int: ...
    def read(self, count: int, /) -> bytes: ...


class PatientFile:
    """What is read again begins where the first try did."""

    def __init__(self, file: OpenFile, patience: Patience) -> None:
        self._file, self._patience = file, patience
        self.tell, self.seek = file.tell, file.seek  # which ask nobody

    def read(self, count: int, /) -> bytes:
        """Raises StoreError where the store is out of reach for too long, and else what its library does."""
        offset = self.tell()

        def read() -> bytes:
            self.seek(offset)
            return self._file.read(count)

        try:
            return self._patience.ride_out(read)
        except Exception as error:  # every store has errors of its own
            if trouble_of(error) != "unreachable":
                raise
            said = public_text(f"{type(error).__name__}: {in_a_line(error)}")
            failure = StoreError(f"could not read on in {self._patience.where}: {said}", FIXES["unreachable"])
            failure.kind = "unreachable"
            raise failure from None


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
    ((kind, content),) = _answers(source)
    assert kind == SCHEMA
    num_rows = int.from_bytes(content[:8], "little", signed=True)
    return pa.ipc.read_schema(pa.py_buffer(content[8:])), None if num_rows == UNKNOWN else num_rows


def open_batches(
    source: TableFile, schema: pa.Schema, *, batch_rows: int, first_row: int, skip: int = 0
) -> Iterator[pa.RecordBatch]:
    """Yield the file's batches with the columns of `schema`. first_row: of the table, for messages.

    skip: how many of its rows to leave out at the beginning; of Parquet alone.
    """
    which = {"batch_rows": batch_rows, "first_row": first_row, "skip": skip}
    for kind, content in _answers(source, which, schema=schema.serialize().to_pybytes()):
        assert kind == BATCH
        with pa.ipc.open_stream(pa.py_buffer(content)) as stream:
            yield from stream


def find_rows(source: TableFile, rows: Sequence[int]) -> tuple[dict[int, str], int]:
    """Return where each of these rows of the file stands, and how many rows were passed until all were found.

    As "line 19"; as "row 3" in Parquet, which has no lines.
    """
    if source.format == "parquet":
        num_rows = read_schema(source)[1] or 0
        return {row: f"row {row}" for row in rows if row < num_rows}, num_rows
    ((kind, content),) = _answers(source, {"lines_of": [*rows]})
    assert kind == LINES
    lines, num_rows = json.loads(content)
    return {row: f"line {line}" for row, line in lines}, num_rows


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


def _answers(
    source: TableFile, which: Mapping[str, Any] | None = None, *, schema: bytes = b""
) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, content) of each answer, while the file is read as the process asks for it.

    which: of the rows; see `reader_process`.
    """
    refused: list[str] = []
    request = {
        "name": source.path,
        "format": source.format,
        "compression": packed(source.path)[1],
        "arguments": dict(source.arguments),
        **(which or {}),
    }
    with _opened(source) as (file, size):
        try:
            with _READERS.one() as reader:
                reader.send(json.dumps({**request, "size": size}).encode())
                reader.send(schema)
                while (message := reader.receive())[:1] != END:
                    kind, content = message[:1], message[1:]
                    if kind == READ:
                        reader.send(_part(file, *QUESTION.unpack(content), name=source.path))
                    elif kind == REFUSED:
                        refused = json.loads(content)
                    else:
                        yield kind, content
        except Ended as error:
            raise TableError(
                f"{source.path} cannot be read: {error}", "write it with another program"
            ) from None
    if refused:
        raise TableError(*refused)


def _part(file: OpenFile, offset: int, count: int, *, name: str) -> bytes:
    try:
        if file.tell() != offset:
            file.seek(offset)
        return file.read(count)
    except FramefleetError:
        raise
    except Exception as error:  # every store has errors of its own: botocore's and aiohttp's are no OSError
        raise TableError(f"{name} cannot be read: {error}", "check the path and the access") from error
