"""The sandbox that reads tables: the bytes of a file in, as it asks for them; schema or batches out."""

from __future__ import annotations

import io
import json
import struct
import threading
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.guards.sandbox import bound_memory, serve
from framefleet.pipeline.rows.tables.file_reading import FileToRead, batches_of, explained, schema_of
from framefleet.pipeline.rows.tables.text_reading import lines_in

# Above what the libraries take. Arrow asks for some hundred megabytes for files that people write, and a file
# below a kilobyte can make it ask for terabytes.
MAX_MEMORY = 2 << 30
# The kinds of messages, their first byte. Questions are (offset, count), two numbers of eight bytes.
READ, SCHEMA, BATCH, LINES, END, REFUSED = b"r", b"s", b"b", b"l", b"e", b"x"
QUESTION = struct.Struct("<qq")
UNKNOWN = -1  # the number of rows of a text file


def main() -> None:
    bound_memory(MAX_MEMORY)
    serve(_answer)


def _answer(connection: Connection) -> None:
    """Answer one request: a JSON object, and the schema where batches are wanted.

    lines_of: the rows of which the lines are wanted, in place of schema or batches.
    """
    request = json.loads(connection.recv_bytes())
    schema = connection.recv_bytes()
    served = _Served(connection, request.pop("size"))
    lines_of: list[int] | None = request.pop("lines_of", None)
    which = {name: request.pop(name) for name in ("batch_rows", "first_row", "skip") if name in request}
    file = FileToRead(content=served, **request)
    try:
        if lines_of is not None:
            with explained(file):
                lines, num_rows = lines_in(file.content, file.format, file.compression, lines_of)
            served.send(LINES + json.dumps([[*lines.items()], num_rows]).encode())
        elif not schema:
            served.send(SCHEMA + _schema_to_bytes(*schema_of(file)))
        else:
            wanted = pa.ipc.read_schema(pa.py_buffer(schema))
            for batch in batches_of(file, wanted, **which):
                served.send(BATCH + _to_bytes(batch))
    except TableError as error:
        served.send(REFUSED + json.dumps([error.problem, error.fix]).encode())
    served.finish(END)


def _schema_to_bytes(schema: pa.Schema, num_rows: int | None) -> bytes:
    count = UNKNOWN if num_rows is None else num_rows
    content: bytes = schema.serialize().to_pybytes()
    return count.to_bytes(8, "little", signed=True) + content


def _to_bytes(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content


class _Served(io.RawIOBase):
    """A file that lies on the other side of the socket. size: None where it can only be read in order.

    Arrow reads ahead in a thread of its own, so a question and its answer are one, and nothing is asked once
    the last word was said.
    """

    def __init__(self, connection: Connection, size: int | None) -> None:
        self._connection, self._size, self._at = connection, size, 0
        self._lock, self._is_finished = threading.Lock(), False

    def send(self, message: bytes) -> None:
        with self._lock:
            self._connection.send_bytes(message)

    def finish(self, message: bytes) -> None:
        with self._lock:
            self._is_finished = True
            self._connection.send_bytes(message)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._size is not None

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if self._size is None:
            raise io.UnsupportedOperation("it can only be read from its start on")
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        with self._lock:
            if self._is_finished:
                return 0
            self._connection.send_bytes(READ + QUESTION.pack(self._at, len(buffer)))
            content = self._connection.recv_bytes()
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


if __name__ == "__main__":
    main()
