"""In: records and a condition on their columns, in SQL. Out: the records for which it is true, by DuckDB.

A condition is about one row: it opens no file, uses no network and sees no other table. It is evaluated in a
sandbox, which runs this file.
"""

from __future__ import annotations

import array
import re
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.mistakes import nearest
from framefleet.pipeline.guards.sandbox import Ended, Sandboxes, bound_memory, serve
from framefleet.pipeline.outputs.parts.record_tables import fix_of_missing, record_schema_of, record_tables
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, plain_name
from framefleet.pipeline.outputs.parts.seals import Part
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.plugin import command_adding, section_adding

_MAX_SILENCE_S = 60.0  # for one part of records: a thousand times what a condition takes
_SANDBOXES = Sandboxes("framefleet.pipeline.outputs.query", max_silence_s=_MAX_SILENCE_S)
_UNKNOWN = re.compile(r'Referenced column "(?P<name>[^"]*)" not found')
# A quoted name, or a text.
_LITERAL = re.compile(r"""("(?:[^"]|"")*")|[eE]'(?:\\.|''|[^'\\])*'|'(?:''|[^'])*'""", re.DOTALL)
_TEXT_AS_NUMBER = re.compile(r"VARCHAR\b.*(explicit|type) cast")
_BEFORE_VALUE = r"(?:[=>,]|\b(?i:in\s*\(|i?like))\s*"  # before a text without quotes
_EXAMPLE = "write it as \"sharpness > 0.4 AND prompt LIKE '%ball%'\""
FOUND, WRONG = b"r", b"w"  # the beginning of an answer: then places of rows, or why there are none
_MAX_BYTES = 2 << 30  # more than the process needs
_SEALED: dict[str, Any] = {
    "enable_external_access": "false",  # no file, no URL, no extension
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # no variable of this process
    "lock_configuration": "true",
    "memory_limit": "1GB",
    "threads": "1",
}


def records_where(
    store: Store, names: Iterable[str], condition: str | None, parts: Sequence[Part] | None = None
) -> Iterator[pa.Table]:
    """Yield an output's records for which a condition is true, or all, as `record_tables` does.

    names: columns to read, if the output has them; those of the condition follow. parts: as in
    `record_schema_of`.
    """
    schema = record_schema_of(store, parts)
    needed = columns_in(condition, schema) if condition is not None else []
    known = {*schema.names, *RECORD_FIELDS.names}
    columns = [name for name in dict.fromkeys([*names, *needed]) if name in known]
    tables = record_tables(store, columns, parts)
    return tables if condition is None else rows_where(tables, condition, schema.names)


def rows_where(
    tables: Iterator[pa.Table], condition: str, names: Sequence[str] = (), *, place: str = "where"
) -> Iterator[pa.Table]:
    """Yield the rows for which the condition is true. Raises JobError if it is not a condition on a row.

    names: all columns that the condition may be about; the tables may have fewer. place: what errors call the
    place of the condition.
    """
    for table in tables:
        yield table.take(_rows(table, condition, names, place=place))


def check_where(columns: pa.Schema, condition: str, *, place: str = "where", source: str = "") -> None:
    """Raise JobError for a condition that does not work on a table with these columns.

    place: in the job. source: what could add a missing column.
    """
    _rows(columns.empty_table(), condition, place=place, source=source)


def columns_in(condition: str, columns: pa.Schema, *, place: str = "where") -> list[str]:
    """Return the columns that a condition may be about: those whose name occurs in it, not in a literal.

    Records of several tables may have names that only differ in case, which SQL takes for one: the column is
    meant whose case the condition has. Raises JobError if it has several of them, or none.
    """
    text = plain_name(_LITERAL.sub(lambda found: found[1] or "", condition))
    by_name: dict[str, list[str]] = {}
    for name in columns.names:
        if plain_name(name) in text or '"' in name:
            by_name.setdefault(plain_name(name), []).append(name)
    chosen = []
    for names in by_name.values():
        exact = [name for name in names if name in condition] if len(names) > 1 else names
        if len(exact) != 1:
            raise JobError(
                f"{place}: records have the columns {' and '.join(map(repr, names))}, "
                "which SQL takes for one",
                "write the name of one of them in its own case",
            )
        chosen += exact
    return chosen


def _rows(
    table: pa.Table,
    condition: str,
    all_names: Sequence[str] = (),
    *,
    place: str = "where",
    source: str = "",
) -> pa.Array:
    """Return the places of the wanted rows, from a sandbox: SQL may take any memory and time."""
    names = {*columns_in(condition, table.schema, place=place)}  # not every type of Arrow is one of DuckDB's
    about = table.select([index for index, name in enumerate(table.column_names) if name in names])
    all_names = all_names or table.column_names
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, about.schema) as stream:
        stream.write_table(about)
    try:
        with _SANDBOXES.one() as box:
            box.send(condition.encode())
            box.send(sink.getvalue())
            answer = box.receive()
    except Ended as ended:
        raise JobError(f"{place}: {condition!r} has no answer: {ended}", _EXAMPLE) from None
    except UnicodeError as error:
        raise _wrong(condition, str(error), about.schema, all_names, place, source) from None
    if answer.startswith(WRONG):
        problem = answer.removeprefix(WRONG).decode()
        raise _wrong(condition, problem, about.schema, all_names, place, source)
    return pa.array(memoryview(answer.removeprefix(FOUND)).cast("q"), pa.int64())


def _wrong(
    condition: str, problem: str, about: pa.Schema, names: Sequence[str], place: str, source: str
) -> JobError:
    """about: columns that the condition has. names: of all."""
    if unknown := _UNKNOWN.search(problem):
        name = unknown["name"]
        fix = fix_of_missing(name, names, source=source)
        is_value = re.search(rf'"{re.escape(name)}"|{_BEFORE_VALUE}{re.escape(name)}\b', condition)
        if not section_adding(name) and is_value and "'" not in name:
            near = source or nearest(name, names) or command_adding(name)
            fix = f"write a text in single quotes: '{name}'" + (f"; or {fix}" if near else "")
        return JobError(f"{place}: there is no column {name!r}", fix)
    text_types = pa.string(), pa.dictionary(pa.int32(), pa.string())
    texts = [column.name for column in about if column.type in text_types]
    fix = _EXAMPLE
    if _TEXT_AS_NUMBER.search(problem) and texts:
        is_text = f"{' and '.join(texts)} {'is' if len(texts) == 1 else 'are'} text"
        fix = f"{is_text}: to use it as a number, write CAST({texts[0]} AS DOUBLE)"
    problem = f"{place}: {condition!r} is not a condition on a row: {problem.partition(chr(10))[0]}"
    return JobError(problem, fix)


def _answer(connection: Connection) -> None:
    import duckdb  # here: the process that starts this one does not need it

    condition = connection.recv_bytes().decode()
    with pa.ipc.open_stream(connection.recv_bytes()) as stream:
        table = stream.read_all()
    number = "__row"  # the place of a row, by a name that does not occur in the condition
    while number in condition.casefold():
        number += "_"
    table = table.append_column(number, pa.array(range(len(table)), pa.int64()))
    with duckdb.connect(":memory:", config=_SEALED) as database:
        try:
            # A relation takes one expression: DuckDB's parser refuses whatever would end it or follow it.
            rows = database.from_arrow(table).filter(condition).project(number).fetchall()
        except (duckdb.Error, MemoryError) as error:
            connection.send_bytes(WRONG + (str(error) or "it takes too much memory").encode())
        else:
            connection.send_bytes(FOUND + array.array("q", sorted(row for (row,) in rows)).tobytes())


if __name__ == "__main__":
    bound_memory(_MAX_BYTES)
    serve(_answer)
