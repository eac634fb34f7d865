"""From tables of scores, oldest first, to the newest score of each row: on disk, so that memory stays flat.

A score is a number, a yes or no, or text.
"""

from __future__ import annotations

import sqlite3

import pyarrow as pa
import pyarrow.compute as pc

_SCHEMA = """
PRAGMA journal_mode = OFF;      -- nobody reads this file after a crash
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;     -- 64 MiB
CREATE TABLE wanted (id TEXT PRIMARY KEY, place INTEGER NOT NULL) WITHOUT ROWID;
"""


class ScoreIndex:
    """The scores of rows. First add every table, then join."""

    def __init__(self, fields: pa.Schema) -> None:
        self._fields = fields
        self._columns = [f"c{number}" for number in range(len(fields))]
        self._db = sqlite3.connect("")  # its own temporary file, without a name
        self._db.executescript(_SCHEMA)
        columns = ", ".join(["id TEXT PRIMARY KEY", *self._columns])
        self._db.execute(f"CREATE TABLE scores ({columns}) WITHOUT ROWID")

    def add(self, table: pa.Table) -> None:
        """Take scores, newer than those before: `row_id`, and those of the fields that it has.

        A null says nothing: what was known before stays.
        """
        columns = dict(zip(self._fields.names, self._columns, strict=True))
        there = {name: column for name, column in columns.items() if name in table.column_names}
        if not there:
            return
        names = ", ".join(there.values())
        newer = ", ".join(f"{column} = coalesce(excluded.{column}, {column})" for column in there.values())
        cells = [table[name].to_pylist() for name in ("row_id", *there)]
        self._db.executemany(
            f"INSERT INTO scores (id, {names}) VALUES ({', '.join('?' * len(cells))}) "
            f"ON CONFLICT (id) DO UPDATE SET {newer}",
            zip(*cells, strict=True),
        )

    def joined(self, table: pa.Table) -> pa.Table:
        """Return the table with the scores of its rows, which differ; a score replaces what was there."""
        self._db.execute("DELETE FROM wanted")
        places = ((row_id, place) for place, row_id in enumerate(table["row_id"].to_pylist()))
        self._db.executemany("INSERT INTO wanted VALUES (?, ?)", places)
        query = f"SELECT {', '.join(self._columns)} FROM wanted LEFT JOIN scores USING (id) ORDER BY place"
        cells = zip(*self._db.execute(query), strict=True)
        for field, values in zip(self._fields, cells, strict=True):
            table = _with_column(table, field, pa.array(values).cast(field.type))
        return table

    def close(self) -> None:
        self._db.close()


def _with_column(table: pa.Table, field: pa.Field, found: pa.Array) -> pa.Table:
    place = table.schema.get_field_index(field.name)
    if place < 0:
        return table.append_column(field, found)
    return table.set_column(place, field, pc.coalesce(found, table[field.name].cast(field.type)))
