"""From an open file to what the process that reads it makes of it: its schema, or its record batches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import FramefleetError, TableError
from framefleet.pipeline.guards.sandbox import Ended, Sandboxes
from framefleet.pipeline.rows.tables.patient_file import OpenFile
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


def read_file_schema(
    file: OpenFile, size: int | None, request: Mapping[str, Any]
) -> tuple[pa.Schema, int | None]:
    """Return the schema and, for Parquet, the number of rows. request: as `FileToRead`. Raises TableError."""
    request = {**request, "batch_rows": 0, "first_row": 0, "skip": 0}
    ((kind, content),) = _answers(file, size, request, schema=b"")
    assert kind == SCHEMA
    num_rows = int.from_bytes(content[:8], "little", signed=True)
    return pa.ipc.read_schema(pa.py_buffer(content[8:])), None if num_rows == UNKNOWN else num_rows


def read_batches(
    file: OpenFile, size: int | None, request: Mapping[str, Any], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Yield the rows with the columns of `schema`. Raises TableError."""
    for kind, content in _answers(file, size, request, schema=schema.serialize().to_pybytes()):
        assert kind == BATCH
        with pa.ipc.open_stream(pa.py_buffer(content)) as stream:
            yield from stream


def read_lines(
    file: OpenFile, size: int | None, request: Mapping[str, Any], rows: Sequence[int]
) -> tuple[dict[int, int], int]:
    """Return what `file_lines.lines_in` finds in a text file. Raises TableError."""
    request = {**request, "batch_rows": 0, "first_row": 0, "skip": 0, "lines_of": [*rows]}
    ((kind, content),) = _answers(file, size, request, schema=b"")
    assert kind == LINES
    lines, num_rows = json.loads(content)
    return dict(lines), num_rows


def _answers(
    file: OpenFile, size: int | None, request: Mapping[str, Any], *, schema: bytes
) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, content) of each answer, while the file is read as the process asks for it."""
    refused: list[str] = []
    try:
        with _READERS.one() as reader:
            reader.send(json.dumps({**request, "size": size}).encode())
            reader.send(schema)
            while (message := reader.receive())[:1] != END:
                kind, content = message[:1], message[1:]
                if kind == READ:
                    reader.send(_part(file, *QUESTION.unpack(content), name=request["name"]))
                elif kind == REFUSED:
                    refused = json.loads(content)
                else:
                    yield kind, content
    except Ended as error:
        raise TableError(
            f"{request['name']} cannot be read: {error}", "write it with another program"
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
