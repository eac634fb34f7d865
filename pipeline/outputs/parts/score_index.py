"""From tables of scores, oldest first, to the newest score of each clip: on disk, so that memory stays flat.

A score is a number, a yes or no, or text. It is of the clip with this media_sha256: a row that was rendered
again may have another. Where a part does not say of which, as one of somebody's own, it is of any of the row.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.temporary_tables import temporary_tables

OF_CLIP = pa.schema([("media_sha256", pa.string())])
_SCHEMA = """
CREATE TABLE wanted (id TEXT PRIMARY KEY, clip TEXT, place INTEGER NOT NULL) WITHOUT ROWID;
"""
_ANY = ""  # in place of a media_sha256


class ScoreIndex:
    """The scores of clips. First add every table, then join."""

    def __init__(self, fields: pa.Schema) -> None:
        self._fields = fields
        self._columns = [f"c{number}" for number in range(len(fields))]
        self._db = temporary_tables(_SCHEMA)
        columns = ", ".join(["id TEXT", "clip TEXT", *self._columns, "PRIMARY KEY (id, clip)"])
        self._db.execute(f"CREATE TABLE scores ({columns}) WITHOUT ROWID")

    def add(self, table: pa.Table) -> None:
        """Take scores, newer than those before: `row_id`, those of the fields that it has.

        And `media_sha256`, if it has that. A null says nothing: what was known before stays.
        """
        columns = dict(zip(self._fields.names, self._columns, strict=True))
        there = {name: column for name, column in columns.items() if name in table.column_names}
        if not there:
            return
        names = ", ".join(there.values())
        newer = ", ".join(f"{column} = coalesce(excluded.{column}, {column})" for column in there.values())
        cells = [table["row_id"].to_pylist(), clips_of(table), *(table[name].to_pylist() for name in there)]
        self._db.executemany(
            f"INSERT INTO scores (id, clip, {names}) VALUES ({', '.join('?' * len(cells))}) "
            f"ON CONFLICT (id, clip) DO UPDATE SET {newer}",
            zip(*cells, strict=True),
        )

    def joined(self, table: pa.Table) -> pa.Table:
        """Return the table with the scores of its rows, which differ; a score replaces what was there.

        One of this clip goes before one that does not say of which. Raises JobError where one does not fit.
        """
        self._db.execute("DELETE FROM wanted")
        rows = zip(table["row_id"].to_pylist(), clips_of(table), range(len(table)), strict=True)
        self._db.executemany("INSERT INTO wanted VALUES (?, ?, ?)", rows)
        chosen = ", ".join(f"coalesce(own.{column}, other.{column})" for column in self._columns)
        query = (
            f"SELECT {chosen} FROM wanted LEFT JOIN scores AS own USING (id, clip) "
            f"LEFT JOIN scores AS other ON other.id = wanted.id AND other.clip = '{_ANY}' ORDER BY place"
        )
        cells = zip(*self._db.execute(query), strict=True)
        for field, values in zip(self._fields, cells, strict=True):
            table = _with_column(table, field, values)
        return table

    def close(self) -> None:
        self._db.close()


def clips_of(table: pa.Table) -> list[str]:
    """Return which clip each row is about, by its media_sha256; "" for any."""
    if OF_CLIP.names[0] not in table.column_names:
        return [_ANY] * len(table)
    return [clip or _ANY for clip in table[OF_CLIP.names[0]].to_pylist()]


def _with_column(table: pa.Table, field: pa.Field, values: tuple[object, ...]) -> pa.Table:
    place = table.schema.get_field_index(field.name)
    try:
        found = pa.array(values).cast(field.type)
        if place < 0:
            return table.append_column(field, found)
        return table.set_column(place, field, pc.coalesce(found, table[field.name].cast(field.type)))
    except pa.ArrowException as error:
        raise JobError(
            f"scores/ or records/ have a value of {field.name!r} that is not of type {field.type}: {error}",
            "move the part with it, which framefleet did not write, out of the output",
        ) from error
