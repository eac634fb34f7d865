"""From one file of a table to its schema and record batches, which a sandbox reads; it runs this file too.

The sandbox asks for the bytes of a file, and returns its schema or batches. The store may be unreachable for
minutes meanwhile.

Folders in the path may add columns, as Hive, Spark and pandas write them:
`prompts/style=oil/seed=7/part-0.parquet` has the columns style and seed, which are not in the file. Their
types are inferred as for CSV. Tables of Delta Lake, Iceberg, Lance and Hudi, and those that `save_to_disk` of
`datasets` writes, are refused: only their own metadata says which files and rows count.
"""

from __future__ import annotations

import io
import json
import re
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.errors import StoreError, TableError
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.guards.sandbox import Ended, Sandboxes, bound_memory, serve
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.outputs.stores.retries import FIXES, Patience, in_a_line, trouble_of, why_unread
from framefleet.pipeline.rows.tables.file_reading import FileToRead, batches_of, explained, schema_of
from framefleet.pipeline.rows.tables.formats import TableFormat
from framefleet.pipeline.rows.tables.row_cells import ODD_CELLS
from framefleet.pipeline.rows.tables.text_reading import lines_in, type_of, typed_cells

# A batch has some megabytes, and a reader asks for more bytes all the time.
_READERS = Sandboxes(__name__, max_silence_s=120.0)
# In addition to the libraries. Arrow takes a few hundred megabytes for usual files, but a malicious file of a
# kilobyte can make it ask for terabytes.
MAX_MEMORY = 2 << 30
# The first byte of a message. Questions are (offset, count), two numbers of eight bytes.
READ, SCHEMA, BATCH, LINES, END = b"r", b"s", b"b", b"l", b"e"  # END is followed by an error, if any
QUESTION = struct.Struct("<qq")
UNKNOWN = -1  # the number of rows of a text file


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """One file of a table. arguments: columns whose cells are checked later, with their kind.

    patience: with its store. partition: values for all its rows, from its folders' names. is_made: as in
    `FileToRead`.
    """

    filesystem: Any  # fsspec has no types
    path: str
    format: TableFormat | None
    arguments: Mapping[str, ArgumentKind]
    patience: Patience
    partition: Mapping[str, pa.Scalar] = field(default_factory=dict)
    own_columns: frozenset[str] = frozenset()  # columns of the partition that are not in the file itself
    is_made: bool = False


def read_schema(source: TableFile) -> tuple[pa.Schema, int | None]:
    """Return the schema and, for Parquet, the number of rows. Raises TableError."""
    ((kind, content),) = _answers(source)
    assert kind == SCHEMA
    num_rows = int.from_bytes(content[:8], "little", signed=True)
    return pa.ipc.read_schema(pa.py_buffer(content[8:])), None if num_rows == UNKNOWN else num_rows


def open_batches(
    source: TableFile, schema: pa.Schema, *, batch_rows: int, first_row: int, skip: int = 0
) -> Iterator[pa.RecordBatch]:
    """Yield batches with the columns of `schema` from table row `first_row` on. skip: only for Parquet."""
    which = {"batch_rows": batch_rows, "first_row": first_row, "skip": skip}
    for kind, content in _answers(source, which, schema=schema.serialize().to_pybytes()):
        assert kind == BATCH
        with pa.ipc.open_stream(pa.py_buffer(content)) as stream:
            yield from stream


def find_rows(source: TableFile, rows: Sequence[int]) -> tuple[dict[int, str], int]:
    """Return where rows are, "line 19" or in Parquet "row 3", and how many rows were read for that."""
    if source.format == "parquet":
        num_rows = read_schema(source)[1] or 0
        return {row: f"row {row}" for row in rows if row < num_rows}, num_rows
    ((kind, content),) = _answers(source, {"lines_of": [*rows]})
    assert kind == LINES
    lines, num_rows = json.loads(content)
    return {row: f"line {line}" for row, line in lines}, num_rows


def _answers(
    source: TableFile, which: Mapping[str, Any] | None = None, *, schema: bytes = b""
) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, content) of each answer while the file is read. which: which rows; see `_answer`."""
    request = {
        "name": source.path,
        "format": source.format,
        "arguments": dict(source.arguments),
        "is_made": source.is_made,
        "size": None,
        **(which or {}),
    }
    try:
        file = source.patience.ride_out(lambda: source.filesystem.open(source.path, "rb"))
    except Exception as error:  # stores have their own errors: botocore's and aiohttp's are not OSErrors
        reason, fix = why_unread(error)
        raise TableError(f"{source.path} cannot be read: {reason}", fix) from error
    with file:
        with suppress(OSError, ValueError):  # some files can only be read in order, e.g. from web servers
            request["size"] = file.seek(0, 2)
        is_seekable = request["size"] is not None
        try:
            with _READERS.one() as reader:
                reader.send(json.dumps(request).encode())
                reader.send(schema)
                while (message := reader.receive())[:1] != END:
                    kind, content = message[:1], message[1:]
                    if kind == READ:
                        reader.send(_part(source, file, *QUESTION.unpack(content), is_seekable=is_seekable))
                    else:
                        yield kind, content
        except Ended as error:
            problem = f"{source.path} cannot be read: {error}"
            raise TableError(problem, "write it with another program") from None
    if refusal := message[1:]:
        raise TableError(*json.loads(refusal))


def _part(source: TableFile, file: Any, offset: int, count: int, *, is_seekable: bool) -> bytes:
    """Return bytes of a file; retries begin at the same offset.

    Raises StoreError if the store is unreachable for too long, TableError for other errors.
    """

    def read() -> bytes:
        if file.tell() != offset:
            file.seek(offset)
        return file.read(count)

    try:
        return source.patience.ride_out(read) if is_seekable else read()
    except Exception as error:  # stores have their own errors: botocore's and aiohttp's are not OSErrors
        if is_seekable and trouble_of(error) == "unreachable":
            message = public_text(f"{type(error).__name__}: {in_a_line(error)}")
            problem = f"could not continue to read {source.patience.where}: {message}"
            failure = StoreError(problem, FIXES["unreachable"])
            failure.kind = "unreachable"
            raise failure from None
        reason, fix = why_unread(error)
        raise TableError(f"{source.path} cannot be read: {reason}", fix) from error


def _answer(connection: Connection) -> None:
    """Answer one request in the sandbox. It is a JSON object, then the schema if batches are wanted.

    Its key lines_of: rows whose lines are wanted, instead of schema or batches.
    """
    request = json.loads(connection.recv_bytes())
    schema = connection.recv_bytes()
    served = _Served(connection, request.pop("size"))
    lines_of: list[int] | None = request.pop("lines_of", None)
    which = {name: request.pop(name) for name in ("batch_rows", "first_row", "skip") if name in request}
    file = FileToRead(content=served, **request)
    refusal = b""
    try:
        if lines_of is not None:
            with explained(file):
                lines, num_rows = lines_in(file.content, file.format, file.name, lines_of)
            served.send(LINES + json.dumps([[*lines.items()], num_rows]).encode())
        elif not schema:
            own_schema, count = schema_of(file)
            length = (UNKNOWN if count is None else count).to_bytes(8, "little", signed=True)
            served.send(SCHEMA + length + own_schema.serialize().to_pybytes())
        else:
            wanted = pa.ipc.read_schema(pa.py_buffer(schema))
            for batch in batches_of(file, wanted, **which):
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, batch.schema) as stream:
                    stream.write_batch(batch)
                served.send(BATCH + sink.getvalue().to_pybytes())
    except TableError as error:
        refusal = json.dumps([error.problem, error.fix]).encode()
    served.send(END + refusal)


class _Served(io.RawIOBase):
    """A file on the other side of the socket. size: None if it can only be read in order.

    Arrow reads ahead in its own thread, so a lock keeps question and answer together, and no question is
    sent after END.
    """

    def __init__(self, connection: Connection, size: int | None) -> None:
        self._connection, self._size, self._at = connection, size, 0
        self._lock, self._is_finished = threading.Lock(), False

    def send(self, message: bytes) -> None:
        with self._lock:
            self._is_finished = message[:1] == END
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


_NULL = "__HIVE_DEFAULT_PARTITION__"
# Files by which other kinds of tables are recognised.
_LAKES = {
    "table of Delta Lake": re.compile(r"/_delta_log/[^/]*\.json$"),
    "table of Lance": re.compile(r"/_versions/[^/]*\.manifest$"),
    "table of Iceberg": re.compile(r"/metadata/[^/]*\.metadata\.json$"),
    "table of Hudi": re.compile(r"/\.hoodie/hoodie\.properties$"),
    "dataset of `save_to_disk`": re.compile(r"/dataset_info\.json$"),
}
_MARKERS = ("_delta_log", "_versions", "metadata", ".hoodie")  # folders of these files


def with_partitions(sources: Sequence[TableFile], root: str) -> tuple[TableFile, ...]:
    """Return the files with the values from their folders' names; arguments are text. Raises TableError."""
    texts = [_texts(source.path, root) for source in sources]
    for source, own in zip(sources, texts, strict=True):
        if [*own] != [*texts[0]]:
            first, other = (", ".join(map(repr, names)) or "no columns" for names in (texts[0], own))
            raise TableError(
                f"{sources[0].path} is in folders for {first}, {source.path} in folders for {other}",
                "name the folders of all files after the same columns, in one order, e.g. style=oil/seed=7",
            )
    if not texts[0]:
        return tuple(sources)
    columns: dict[str, pa.Array] = {}
    for name in texts[0]:
        cells = pa.array([own[name] for own in texts], pa.string())
        kind = pa.string() if name in sources[0].arguments else type_of(cells.unique())
        columns[name] = typed_cells(cells, kind)[0]
    return tuple(
        replace(source, partition={name: column[number] for name, column in columns.items()})
        for number, source in enumerate(sources)
    )


def _texts(path: str, root: str) -> dict[str, str | None]:
    """Return the values, by column, of the folders between the table's folder and a file."""
    plain = path.partition("?")[0] if "://" in path else path  # folders may have names with a question mark
    pairs: list[tuple[str, str | None]] = []
    for folder in PurePosixPath(plain).parts[len(PurePosixPath(root).parts) : -1]:
        try:
            name, equals, value = (unquote(part, errors="strict") for part in folder.partition("="))
            folder.encode()
        except UnicodeError:
            problem = f"{path!r}: the name of its folder {folder!r} is not UTF-8"
            raise TableError(problem, "rename the folder") from None
        if name and equals:
            pairs.append((name, None if value == _NULL else value))
    names = [name for name, _ in pairs]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise TableError(f"{path} has two folders for the column {doubled[0]!r}", "rename one of them")
    return dict(pairs)


def with_own_columns(batch: pa.RecordBatch, source: TableFile) -> pa.RecordBatch:
    """Add the partition's values as columns. Raises TableError if the file has other values in one."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    odd = columns.pop(ODD_CELLS, None)
    for name, value in source.partition.items():
        if name not in columns:
            columns[name] = pa.repeat(value, batch.num_rows)
        elif not _is_all(columns[name], value):
            problem = f"{source.path} has rows whose column {name!r} is not {value}, the value of its folder"
            raise TableError(problem, "write the table again, without that column in the files")
    columns |= {} if odd is None else {ODD_CELLS: odd}
    return pa.RecordBatch.from_arrays([*columns.values()], names=[*columns])


def _is_all(cells: pa.Array, value: pa.Scalar) -> bool:
    try:
        wanted = value.cast(cells.type)
    except pa.ArrowException:
        return False
    if not wanted.is_valid:
        return bool(cells.null_count == len(cells))
    return cells.null_count == 0 and pc.all(pc.equal(cells, wanted)).as_py() is not False


def check_lake_folders(filesystem: Any, folders: Iterable[str], location: str) -> None:
    """Raise TableError if a folder, or the parent of a folder `data`, is another kind of table."""
    for folder in dict.fromkeys(part for path in folders for part in (path, path.removesuffix("/data"))):
        names = _names_in(filesystem, folder)
        files = [f"{folder}/{name}" for name in names]
        for marker in names.intersection(_MARKERS):
            files += [f"{folder}/{marker}/{name}" for name in _names_in(filesystem, f"{folder}/{marker}")]
        check_lake_files(filesystem, files, location)


def check_lake_files(filesystem: Any, files: Sequence[str], location: str) -> None:
    """Raise TableError if one of these files belongs to Delta Lake, Iceberg, Lance, Hudi or `datasets`."""
    for kind, pattern in _LAKES.items():
        if marker := next(filter(pattern.search, files), None):
            url = filesystem.unstrip_protocol(pattern.sub("", marker)).removeprefix("file://")
            where = "" if location.rstrip("/") == url else f"{location}: "
            raise TableError(
                f"{where}{url} is a {kind}, whose files also contain rows that do not count",
                "read it with its own library, and pass it in Python: framefleet.render(job, table=...); "
                "or write its rows as Parquet",
            )


def _names_in(filesystem: Any, folder: str) -> set[str]:
    try:
        return {PurePosixPath(name).name for name in filesystem.ls(folder, detail=False)}
    except (OSError, NotImplementedError):  # no such folder, or the store cannot list
        return set()


if __name__ == "__main__":
    bound_memory(MAX_MEMORY)
    serve(_answer)
