"""Find the records and files of an output that are not as they were committed, by reading every byte.

Changes nothing, and memory stays flat. Records are not trusted: no path outside of clips/, derived/ and
extras/ is opened. Previews are not checked, as they can be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, islice
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.api.errors import JobError, StoreError
from framefleet.api.outputs import RECORD_FIELDS, Output, OutputFiles, Store, rows_of
from framefleet.pipeline.guards.temporary_tables import temporary_tables
from framefleet.pipeline.outputs import layout
from framefleet.pipeline.outputs.output import (
    FRAMES_OF,
    RecordedFile,
    Unsound,
    recorded_files,
    sound_content,
    why_unsound,
)
from framefleet.pipeline.outputs.parts.records import fields_named
from framefleet.plugins.keep.record_law import LAW_COLUMNS, RecordLaw

_NUM_READERS = 16  # a store answers in tens of milliseconds, and hashing gives way to other threads
_AT_ONCE_BYTES = 64 << 20  # larger files are never held whole, since several are read at once
_AHEAD = 64  # folders listed ahead
_OTHERS = ("extra_outputs_sha256", "extra_outputs_path", "derived_sha256", "derived_path", "derived_bytes")
_FIELDS = fields_named(RECORD_FIELDS, *dict.fromkeys((*FRAMES_OF, *_OTHERS, *LAW_COLUMNS)))
_SCHEMA = """
CREATE TABLE parts (number INTEGER PRIMARY KEY, path TEXT UNIQUE NOT NULL);
-- clip, extras, derived: what follows the row_id in the names of its files.
CREATE TABLE records (part INTEGER NOT NULL, id BLOB NOT NULL, clip TEXT NOT NULL, extras TEXT,
                      derived TEXT, is_sound INTEGER NOT NULL);
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

# missing, size, bytes, unreadable: a file named by the record of `row_id` is gone, has another size or other
# bytes, or cannot be read, e.g. from a bad disk. record: it contradicts itself, its clip or job.json.
# doubled: a later record has the same row as one in the part at `path`. part, job: a part or job.json is not
# as it was written. late: a part that does not count, because it was written after its driver lost the
# output, or because a larger part has its rows. stray: no record names the file. uncommitted: no record names
# it yet, because its driver died. foreign: framefleet did not write it.
DamageKind = Literal[Unsound, "record", "doubled", "part", "job", "late", "stray", "uncommitted", "foreign"]
_UNREAD = {
    "foreign": "",
    "late": "ignored: it was written after its driver lost the output, or a larger part has its rows",
    "merged": "ignored: another part has its rows, because a driver was killed while it merged parts",
}
_LEFTOVERS = ("late", "stray", "uncommitted", "foreign")


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One thing that is not as it was committed."""

    kind: DamageKind
    path: str
    row_id: str | None = None
    reason: str = ""

    @property
    def is_leftover(self) -> bool:
        """Whether all records are still right, so that readers do not notice."""
        return self.kind in _LEFTOVERS


def damaged_records(store: Store, index: ClipIndex, checked: Callable[[int], None]) -> Iterator[Damage]:
    """Read every part and every file that its records name; yield what is wrong and fill `index`."""
    files, num_checked = OutputFiles(store), 0
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        for part in files.parts(layout.RECORDS):
            path = part.path
            try:
                law = RecordLaw.of(store, schema := files.schema(part))
                own = [schema.field(name) for name in law.own_columns]
                for rows in files.rows(part, pa.schema([*_FIELDS, *own])):
                    damages = list(readers.map(partial(look_at, store, law=law), rows))
                    index.add(path, zip(rows, (not some for some in damages), strict=True))
                    yield from chain.from_iterable(damages)
                    num_checked += len(rows)
                    checked(num_checked)
            except JobError as error:
                index.forget(path)
                yield Damage(kind="part", path=path, reason=error.problem)
    for path, row_id in index.doubled():
        yield Damage(kind="doubled", path=path, row_id=row_id)


def look_at(store: Store, record: Mapping[str, Any], *, law: RecordLaw | None = None) -> list[Damage]:
    """Read the files of one record. Raises JobError if it names files as framefleet never does.

    law: also checks the record itself, which needs all its columns.
    """
    clip, *others = recorded_files(record)
    damages, sound = [], None
    for file in (clip, *others):
        content = _small_content(store, file)
        if isinstance(content, str):
            damages.append(Damage(kind=content, path=file.path, row_id=record["row_id"]))
        elif file is clip:
            sound = content
    if law and (reason := law.contradiction(record, sound)):
        damages.append(Damage(kind="record", path=clip.path, row_id=record["row_id"], reason=reason))
    return damages


def _small_content(store: Store, file: RecordedFile) -> bytes | Unsound | None:
    """Read a file; return what is wrong, its bytes if it is sound, or None if it is sound but large.

    A file of the wrong size is not read further.
    """
    if file.size is not None and file.size <= _AT_ONCE_BYTES:
        return sound_content(store, file)
    try:
        if file.size not in (None, store.stat(file.path).size):
            return "size"
        return None if store.sha256(file.path) == file.sha256 else "bytes"
    except (FileNotFoundError, StoreError) as error:
        return why_unsound(store, error)


def look_at_row(output: Output, row_id: str) -> list[Damage]:
    """Check the record of a row and the files that it names. Raises as `look_at` does.

    output: best limited to a few parts, by `holding` the row.
    """
    law = RecordLaw.of(output.store, output.schema())
    columns = [*RECORD_FIELDS.names, *law.own_columns]
    tables = (table.filter(pc.equal(table["row_id"], row_id)) for table in output.records(columns))
    (record,) = (row for table in tables for row in rows_of(table, output.url))
    return look_at(output.store, record, law=law)


def damage_below(folder: str, damage: Damage) -> Damage:
    """Return damage of an inner output with its path in the outer one. folder: of the inner output, or ""."""
    return replace(damage, path=f"{folder}/{damage.path}") if folder else damage


def beside_parts(store: Store) -> Iterator[Damage]:
    """Yield the files in records/ that are not read, and the parts that are gone."""
    files = OutputFiles(store)
    for path, kind in files.unread():
        yield Damage(kind="foreign" if kind == "foreign" else "late", path=path, reason=_UNREAD[kind])
    for path in files.gone():
        reason = "gone; it was there when the last driver started or ended"
        yield Damage(kind="part", path=path, reason=reason)


def other_parts(store: Store) -> Iterator[Damage]:
    """Yield the parts outside of records/, and the tables of rows, that cannot be read."""
    for path, reason in OutputFiles(store).unreadable():
        again = "; add its rows again" if f"/{layout.ADDED}" in path else ""
        yield Damage(kind="part", path=path, reason=f"{reason}{again}")


def strays(store: Store, index: ClipIndex) -> Iterator[Damage]:
    """Yield the files in clips/, derived/, previews/ and extras/ that no record of `index` names."""
    uncommitted = OutputFiles(store).uncommitted()
    of_rows = (layout.CLIPS, layout.DERIVED, layout.PREVIEWS)
    places = chain(*map(store.children, of_rows), [f"{layout.EXTRAS}/"])

    def below(place: str) -> list[str]:
        return store.list(place.rstrip("/")) if place.endswith("/") else [place]

    with ThreadPoolExecutor(_NUM_READERS) as readers:
        while some := list(islice(places, _AHEAD)):
            for path in chain.from_iterable(readers.map(below, some)):
                row_id = layout.row_named_by(path)
                if row_id is None:
                    yield Damage(kind="foreign", path=path)
                elif not index.names(path, row_id):
                    kind: DamageKind = "uncommitted" if row_id in uncommitted else "stray"
                    yield Damage(kind=kind, path=path, row_id=row_id)


class ClipIndex:
    """All records of an output by part: finds rows that have two records, and files that no record names.

    On disk, with about 100 bytes per record (`guards/temporary_tables.py`). Add all records before the first
    query. Not thread-safe.
    """

    def __init__(self) -> None:
        self._db = temporary_tables(_SCHEMA)

    def add(self, part: str, records: Iterable[tuple[Mapping[str, Any], bool]]) -> None:
        """Add records, each with whether its files are sound."""
        self._db.execute("INSERT OR IGNORE INTO parts (path) VALUES (?)", (part,))
        (number,) = self._db.execute("SELECT number FROM parts WHERE path = ?", (part,)).fetchone()
        for record, is_sound in records:
            row_id = record["row_id"]
            paths = [record["path"]]
            for name in ("extra_outputs", "derived"):
                paths.append(record[f"{name}_path"] if record[f"{name}_sha256"] else None)
            row = (number, bytes.fromhex(row_id), *(_tail(path, row_id) for path in paths), is_sound)
            self._db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", row)

    def forget(self, part: str) -> None:
        query = "DELETE FROM records WHERE part = (SELECT number FROM parts WHERE path = ?)"
        self._db.execute(query, (part,))

    def doubled(self) -> Iterator[tuple[str, str]]:
        """Yield part and row_id of every record that a later one of the same row replaces."""
        self._db.execute(_SEAL)
        return ((path, row_id.hex()) for path, row_id in self._db.execute(_DOUBLED))

    def take_spare(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each part with the rows to take out of it, once. The last sound record of a row stays."""
        self._db.execute(_SEAL)
        self._db.executescript(_SPARE)
        spare = self._db.execute("SELECT path, id FROM spare JOIN parts ON number = part ORDER BY part")
        for path, rows in groupby(spare, key=lambda row: str(row[0])):
            yield path, [row_id.hex() for _, row_id in rows]

    def has(self, row_id: str) -> bool:
        self._db.execute(_SEAL)
        query = "SELECT 1 FROM records WHERE id = ?"
        return self._db.execute(query, (bytes.fromhex(row_id),)).fetchone() is not None

    def names(self, path: str, row_id: str) -> bool:
        """Whether a record of this row names the file; for a preview or label, whether it names the clip."""
        self._db.execute(_SEAL)
        path = path.removesuffix(layout.LABEL_SUFFIX)
        if path.startswith(f"{layout.PREVIEWS}/"):
            query = "SELECT 1 FROM records WHERE id = ? AND substr(clip, 1, instr(clip, '.')) = ?"
            stem = (_tail(path, row_id) or "").removesuffix("webp")
            return self._db.execute(query, (bytes.fromhex(row_id), stem)).fetchone() is not None
        column = {layout.EXTRAS: "extras", layout.DERIVED: "derived"}.get(path.partition("/")[0], "clip")
        query = f"SELECT 1 FROM records WHERE id = ? AND {column} = ?"
        return self._db.execute(query, (bytes.fromhex(row_id), _tail(path, row_id))).fetchone() is not None

    def close(self) -> None:
        self._db.close()


def _tail(path: str | None, row_id: str) -> str | None:
    return path and path.rpartition(row_id)[2]
