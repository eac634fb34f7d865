"""The sandbox that asks DuckDB. In: a condition in SQL, and a table. Out: the rows for which it is true.

Some functions of DuckDB take memory that its own limit does not count, and some heed no interruption.
"""

from __future__ import annotations

import array
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from framefleet.pipeline.guards.sandbox import bound_memory, serve

FOUND, WRONG = b"r", b"w"  # what an answer begins with: then places of rows, or why there are none
_MAX_BYTES = 2 << 30  # more than the process has
_SEALED: dict[str, Any] = {
    "enable_external_access": "false",  # no file, no URL, no extension
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # no variable of this process
    "lock_configuration": "true",
    "memory_limit": "1GB",
    "threads": "1",
}


def main() -> None:
    bound_memory(_MAX_BYTES)
    serve(_answer)


def _answer(connection: Connection) -> None:
    import duckdb  # here: who starts this process does not need it

    condition = connection.recv_bytes().decode()
    with pa.ipc.open_stream(connection.recv_bytes()) as stream:
        table = stream.read_all()
    with duckdb.connect(":memory:", config=_SEALED) as database:
        connection.send_bytes(_rows(database, table, condition))


def _rows(database: Any, table: pa.Table, condition: str) -> bytes:
    import duckdb

    number = _unsaid(condition)
    numbered = table.append_column(number, pa.array(range(len(table)), pa.int64()))
    try:
        # A relation takes one expression: whatever would end it or follow it is refused by DuckDB's parser.
        found = database.from_arrow(numbered).filter(condition).project(number).fetchall()
    except (duckdb.Error, MemoryError) as error:
        return WRONG + (str(error) or "it takes too much memory").encode()
    return FOUND + array.array("q", sorted(row for (row,) in found)).tobytes()


def _unsaid(condition: str) -> str:
    """Return a name for where rows stand that the condition does not say: no column that it asks has it."""
    name = "__row"
    while name in condition.casefold():
        name += "_"
    return name


if __name__ == "__main__":
    main()
