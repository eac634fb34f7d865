"""From rows of a table, as they are read, to which are doubled, done or still to render: on disk.

About 40 bytes of disk per row, see `guards/temporary_tables.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from framefleet.pipeline.guards.temporary_tables import temporary_tables

_SCHEMA = """
CREATE TABLE rows (position INTEGER PRIMARY KEY, id BLOB NOT NULL);
CREATE TABLE left_out (position INTEGER PRIMARY KEY);
CREATE TABLE done (id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE doubled (id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE again (id BLOB PRIMARY KEY) WITHOUT ROWID;     -- for the next pass over the table
CREATE TABLE reopened (id BLOB PRIMARY KEY) WITHOUT ROWID;  -- for this pass, if it is not the first
"""
# Built after the rows are in, by one sort: keeping it while adding costs random writes all over the file.
_SEAL = "CREATE INDEX IF NOT EXISTS by_id ON rows (id)"
# `count(DISTINCT id)` would not use the index and takes thirty times as long.
_COUNT = "SELECT (SELECT count(*) FROM rows), (SELECT count(*) FROM (SELECT 1 FROM rows GROUP BY id))"
_MARK = "INSERT OR IGNORE INTO done SELECT ?1 WHERE EXISTS (SELECT 1 FROM rows WHERE id = ?1)"
_DOUBLED = "INSERT OR IGNORE INTO doubled SELECT ?1 WHERE EXISTS (SELECT 1 FROM done WHERE id = ?1)"
_IS_PENDING = "SELECT EXISTS (SELECT 1 FROM rows WHERE id = ?1), EXISTS (SELECT 1 FROM done WHERE id = ?1)"
_AGAIN = "INSERT OR IGNORE INTO again SELECT ?1 WHERE EXISTS (SELECT 1 FROM rows WHERE id = ?1)"
_IS_DONE = "SELECT EXISTS (SELECT 1 FROM done WHERE id = ?)"
_OTHERS_DONE = "INSERT OR IGNORE INTO done SELECT id FROM rows WHERE id NOT IN (SELECT id FROM wanted)"
_FIRST_PASS = "NOT EXISTS (SELECT 1 FROM done WHERE done.id = r.id)"
_LATER_PASS = "EXISTS (SELECT 1 FROM reopened WHERE reopened.id = r.id)"
_PENDING = """
SELECT position, id FROM rows AS r
WHERE position >= ? AND position < ? AND {}
  AND NOT EXISTS (SELECT 1 FROM rows AS twin WHERE twin.id = r.id AND twin.position < r.position)
ORDER BY position
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """rows: all that were added; duplicates: those whose row_id came earlier; done + pending = distinct."""

    rows: int
    distinct: int
    duplicates: int
    done: int
    pending: int


class RowIndex:
    """All positions of each row_id. First add every row, then ask; for one thread at a time."""

    def __init__(self) -> None:
        self._db = temporary_tables(_SCHEMA)
        self._totals: tuple[int, int] | None = None
        self._num_done = 0
        self._num_reopened: int | None = None  # None: this is the first pass
        self.num_left_out = 0
        self.is_whole = True  # all rows of the table without a record are to be rendered
        self.num_doubled = 0  # rows that were marked done more than once

    def add(self, rows: Iterable[tuple[int, str]]) -> None:
        """Take rows as (position in the table, row_id), in any order; a position only once."""
        pairs = ((position, bytes.fromhex(row_id)) for position, row_id in rows)
        self._db.executemany("INSERT INTO rows VALUES (?, ?)", pairs)
        self._totals = None

    def leave_out(self, positions: Iterable[int]) -> None:
        """Take the positions of rows that are not to be rendered; each once."""
        pairs = ((position,) for position in positions)
        self.num_left_out += max(self._db.executemany("INSERT INTO left_out VALUES (?)", pairs).rowcount, 0)

    def left_out_in(self, first: int, n: int) -> set[int]:
        """Return the positions that were left out, of `first` to `first + n`."""
        query = "SELECT position FROM left_out WHERE position >= ? AND position < ?"
        return {position for (position,) in self._db.execute(query, (first, first + n))}

    def mark_done(self, row_ids: Iterable[str]) -> int:
        """Note that these have a record; return how many are new. Those not of the table are ignored."""
        self._seal()
        ids = [(bytes.fromhex(row_id),) for row_id in row_ids]
        self.num_doubled += max(self._db.executemany(_DOUBLED, ids).rowcount, 0)
        new = self._db.executemany(_MARK, ids).rowcount
        self._num_done += max(new, 0)  # -1 when there were none
        return max(new, 0)

    def is_pending(self, row_id: str) -> bool | None:
        """Tell whether a row is still to render; None where it is none of the table."""
        self._seal()
        is_there, is_done = self._db.execute(_IS_PENDING, (bytes.fromhex(row_id),)).fetchone()
        return not is_done if is_there else None

    def leave_only(self, row_ids: Iterable[str]) -> None:
        """Let of the rows that are to be rendered no others be."""
        self.is_whole = False
        self._seal()
        self._db.execute("CREATE TEMP TABLE wanted (id BLOB PRIMARY KEY) WITHOUT ROWID")
        ids = ((bytes.fromhex(row_id),) for row_id in row_ids)
        self._db.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", ids)
        self._db.execute(_OTHERS_DONE)
        self._db.execute("DROP TABLE wanted")
        (self._num_done,) = self._db.execute("SELECT count(*) FROM done").fetchone()

    def render_again(self, row_ids: Iterable[str]) -> int:
        """Note rows of the table whose records were taken back, for the pass after this one.

        Return how many of them had their record before the first pass.
        """
        ids = [(bytes.fromhex(row_id),) for row_id in row_ids]
        self._db.executemany(_AGAIN, ids)
        return sum(self._db.execute(_IS_DONE, one).fetchone()[0] for one in ids)

    def reopen(self) -> int:
        """Begin a pass over the rows that are to be rendered again, and no others; return how many.

        Where there are none, this pass goes on.
        """
        (count,) = self._db.execute("SELECT count(*) FROM again").fetchone()
        if count:
            self._db.execute("DELETE FROM reopened")
            self._db.execute("INSERT INTO reopened SELECT id FROM again")
            self._db.execute("DELETE FROM again")
            self._num_reopened = int(count)
        return int(count)

    def counts(self) -> RowCounts:
        rows, distinct = self._seal()
        pending = distinct - self._num_done if self._num_reopened is None else self._num_reopened
        return RowCounts(
            rows=rows,
            distinct=distinct,
            duplicates=rows - distinct,
            done=distinct - pending,
            pending=pending,
        )

    def pending_in(self, first: int, n: int) -> list[tuple[int, str]]:
        """Return (position, row_id), in table order, of what is not done in `first` to `first + n`.

        Only the first position of each row_id in the whole table.
        """
        self._seal()
        query = _PENDING.format(_FIRST_PASS if self._num_reopened is None else _LATER_PASS)
        found = self._db.execute(query, (first, first + n))
        return [(position, row_id.hex()) for position, row_id in found]

    def row_ids_in(self, first: int, n: int) -> list[tuple[int, str]]:
        """Return (position, row_id), in table order, of all rows in `first` to `first + n`."""
        query = "SELECT position, id FROM rows WHERE position >= ? AND position < ? ORDER BY position"
        return [(position, row_id.hex()) for position, row_id in self._db.execute(query, (first, first + n))]

    def positions(self, row_id: str) -> list[int]:
        """Return every position of a row_id in table order."""
        self._seal()
        query = "SELECT position FROM rows WHERE id = ? ORDER BY position"
        return [position for (position,) in self._db.execute(query, (bytes.fromhex(row_id),))]

    def close(self) -> None:
        self._db.close()

    def _seal(self) -> tuple[int, int]:
        """Return (rows, distinct row_ids), with the index built."""
        if self._totals is None:
            self._db.execute(_SEAL)
            rows, distinct = self._db.execute(_COUNT).fetchone()
            self._totals = (rows, distinct)
        return self._totals
