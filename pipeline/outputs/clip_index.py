"""From records, as they are read, to which rows they name twice and which files they name: on disk.

About 100 bytes of disk for each record, see `guards/temporary_tables.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from framefleet.pipeline.guards.temporary_tables import temporary_tables
from framefleet.pipeline.outputs.layout import EXTRAS, PREVIEWS
from framefleet.pipeline.outputs.media.clip_names import LABEL_SUFFIX

_SCHEMA = """
CREATE TABLE parts (number INTEGER PRIMARY KEY, path TEXT UNIQUE NOT NULL);
-- clip, extras: what follows the row_id in the names of its files.
CREATE TABLE records (part INTEGER NOT NULL, id BLOB NOT NULL, clip TEXT NOT NULL, extras TEXT,
                      is_sound INTEGER NOT NULL);
"""
# Built after the records are in, by one sort.
_SEAL = "CREATE INDEX IF NOT EXISTS by_id ON records (id)"
_LATER = "EXISTS (SELECT 1 FROM records AS o WHERE o.id = r.id AND o.rowid > r.rowid {})"
_DOUBLED = f"SELECT path, id FROM records AS r JOIN parts ON number = part WHERE {_LATER.format('')}"
_SPARE = f"""
CREATE TABLE spare AS SELECT part, id FROM records AS r
WHERE NOT is_sound OR {_LATER.format("AND o.is_sound")} ORDER BY part;
DELETE FROM records AS r WHERE EXISTS (SELECT 1 FROM spare WHERE spare.id = r.id AND spare.part = r.part);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedRecord:
    """One record. clip, extras: paths of its files. is_sound: they are as it says."""

    row_id: str
    clip: str
    extras: str | None
    is_sound: bool


class ClipIndex:
    """All records of an output, part by part. First add every one, then ask; for one thread at a time."""

    def __init__(self) -> None:
        self._db = temporary_tables(_SCHEMA)

    def add(self, part: str, records: Iterable[IndexedRecord]) -> None:
        self._db.execute("INSERT OR IGNORE INTO parts (path) VALUES (?)", (part,))
        (number,) = self._db.execute("SELECT number FROM parts WHERE path = ?", (part,)).fetchone()
        rows = (
            (number, bytes.fromhex(r.row_id), _tail(r.clip, r.row_id), _tail(r.extras, r.row_id), r.is_sound)
            for r in records
        )
        self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)

    def forget(self, part: str) -> None:
        """Take back what was added of a part."""
        self._db.execute(
            "DELETE FROM records WHERE part = (SELECT number FROM parts WHERE path = ?)", (part,)
        )

    def doubled(self) -> Iterator[tuple[str, str]]:
        """Yield the part and the row_id of every record but the last of its row, which counts."""
        self._db.execute(_SEAL)
        return ((path, row_id.hex()) for path, row_id in self._db.execute(_DOUBLED))

    def take_spare(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each part with the rows that it is not to name, and forget their records; once.

        Of each row the last record stays whose files are as it says, and none if there is none.
        """
        self._db.execute(_SEAL)
        self._db.executescript(_SPARE)
        found = self._db.execute("SELECT path, id FROM spare JOIN parts ON number = part ORDER BY part")
        for path, rows in groupby(found, key=lambda row: str(row[0])):
            yield path, [row_id.hex() for _, row_id in rows]

    def has(self, row_id: str) -> bool:
        """Tell whether a row has a record."""
        self._db.execute(_SEAL)
        query = "SELECT 1 FROM records WHERE id = ?"
        return self._db.execute(query, (bytes.fromhex(row_id),)).fetchone() is not None

    def names(self, path: str, row_id: str) -> bool:
        """Tell whether a record of this row names a file, or the clip that a preview or a label is of."""
        self._db.execute(_SEAL)
        path = path.removesuffix(LABEL_SUFFIX)
        if path.startswith(f"{PREVIEWS}/"):
            query = "SELECT 1 FROM records WHERE id = ? AND substr(clip, 1, instr(clip, '.')) = ?"
            stem = (_tail(path, row_id) or "").removesuffix("webp")
            return self._db.execute(query, (bytes.fromhex(row_id), stem)).fetchone() is not None
        column = "extras" if path.startswith(f"{EXTRAS}/") else "clip"
        query = f"SELECT 1 FROM records WHERE id = ? AND {column} = ?"
        return self._db.execute(query, (bytes.fromhex(row_id), _tail(path, row_id))).fetchone() is not None

    def close(self) -> None:
        self._db.close()


def _tail(path: str | None, row_id: str) -> str | None:
    return path and path.rpartition(row_id)[2]
