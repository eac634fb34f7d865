"""Stars and notes that people give to clips, through several servers at once; and the rows of a file of them.

    stars/<server>.jsonl   what one server was asked to keep, a line for each clip; written by it alone
    stars.jsonl            all of them together, for people and other programs; made again after every change

No server writes another's file, so that none loses a change, whatever the store can do. Readers merge the
files: of a clip the newest line counts. What people wrote is in stars.jsonl alone; a line of theirs may have
a row_id and no stars.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from framefleet.api.errors import JobError
from framefleet.api.outputs import ROW_ID, Output, Store, Stored, columns_in, read_as, rows_where
from framefleet.api.texts import parse_json

PICKS, PICK_FILES = "stars.jsonl", "stars"
_MAX_BYTES = 1 << 28  # half a million picks with prompts and notes
_MAX_STARS = 5
_STAMP_S = 2.0  # the coarsest clock of file systems: two changes within it may look alike


class PickChange(BaseModel):
    """What is kept of one clip, and a change of it."""

    model_config = ConfigDict(strict=True)

    row_id: Annotated[str, Field(pattern=ROW_ID)]
    stars: Annotated[int, Field(ge=0, le=_MAX_STARS)] = 0
    note: Annotated[str, Field(max_length=10_000)] = ""


class KeptPick(PickChange):
    """at: of two the larger one counts; nanoseconds, but never below what its server had seen of the clip."""

    at: Annotated[int, Field(ge=0)] = 0

    @property
    def is_pick(self) -> bool:
        """Whether the clip is chosen; else its pick was taken back."""
        return bool(self.stars or self.note) or "stars" not in self.model_fields_set


_KEPT = TypeAdapter(KeptPick)


def read_picks(store: Store) -> dict[str, KeptPick]:
    """Return the picks of an output by row_id. Raises JobError for a line that is none."""
    return {row_id: pick for row_id, pick in _PickFiles(store).merged().items() if pick.is_pick}


class _PickFiles:
    """The files of an output's picks: each is read again only when it changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # How each file was stored, since when, whether it was read well after that, and what it has.
        self._read: dict[str, tuple[Stored, float, bool, list[KeptPick]]] = {}

    def merged(self) -> dict[str, KeptPick]:
        """Return what counts of each clip, also that its pick was taken back."""
        latest: dict[str, KeptPick] = {}
        details = self._store.details(PICK_FILES)
        # The last: who corrects a line of it by hand leaves its `at` as it is.
        for path in (*sorted(path for path in details if path.endswith(".jsonl")), PICKS):
            with suppress(FileNotFoundError):
                for pick in self._picks_in(path, details.get(path) or self._store.stat(path)):
                    if pick.row_id not in latest or latest[pick.row_id].at <= pick.at:
                        latest[pick.row_id] = pick
        return latest

    def _picks_in(self, path: str, stored: Stored) -> list[KeptPick]:
        now = time.monotonic()
        before, since, is_settled, picks = self._read.get(path, (None, now, False, []))
        if stored != before:
            since = now
        elif is_settled and stored.stamp:
            return picks
        lines = self._store.read(path, _MAX_BYTES).splitlines()
        picks = [read_as(_KEPT, line, self._store.url_of(path)) for line in lines if line.strip()]
        self._read[path] = stored, since, now - since > _STAMP_S, picks
        return picks


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """What a file of picks says of a row; None where it says nothing."""

    stars: int | None = None
    note: str | None = None


# Of picks, as columns.
LABELS = pa.schema([("stars", pa.int64()), ("note", pa.string())])


def picked(
    picks: str | Path | Collection[str] | None, storage_options: Mapping[str, Any]
) -> dict[str, Pick] | None:
    """Return the chosen rows; None for all.

    picks: row_ids, or the path or URL of a JSONL file that names each row by its `row_id`, with stars and
    note. Rows with 0 stars are not chosen.
    """
    if picks is None:
        return None
    if not isinstance(picks, str | Path):
        return {row_id: Pick() for row_id in picks}
    place = str(picks)
    folder, _, name = place.rpartition("/")
    store = Store(folder or ("/" if place.startswith("/") else "."), storage_options)
    try:
        content = store.read(name, _MAX_BYTES + 1)
        if name == PICKS and store.list(PICK_FILES):  # where servers keep more
            content = _lines(read_picks(store).values())
    except FileNotFoundError:
        problem = f"picks: {place} is not there"
        raise JobError(problem, "save it from the gallery, or check its path") from None
    if len(content) > _MAX_BYTES:
        raise JobError(f"picks: {place} has more than {_MAX_BYTES:,} bytes", "split it, or use --where")
    lines = enumerate(content.splitlines(), start=1)
    rows = dict(_pick(line, f"{place} line {number}") for number, line in lines if line.strip())
    chosen = {row_id: pick for row_id, pick in rows.items() if pick.stars != 0}
    if not chosen:
        raise JobError(f"picks: {place} has no row with a star", 'write lines as {"row_id": "..."}')
    return chosen


def _pick(line: bytes, where: str) -> tuple[str, Pick]:
    try:
        pick = parse_json(line)
    except ValueError as error:
        raise JobError(f"picks: {where} is not JSON: {error}", 'write lines as {"row_id": "..."}') from None
    row_id = pick.get("row_id") if isinstance(pick, dict) else None
    if not isinstance(row_id, str) or not re.fullmatch(ROW_ID.strip("^$"), row_id, re.ASCII):
        raise JobError(f"picks: {where} has no row_id of 32 hex digits", "take it from a record")
    stars, note = pick.get("stars"), pick.get("note")
    if stars is not None and (type(stars) is not int or not 0 <= stars <= _MAX_STARS):
        raise JobError(f"picks: {where}: stars is {stars!r}", f"use a whole number from 0 to {_MAX_STARS}")
    if note is not None and not isinstance(note, str):
        raise JobError(f"picks: {where}: note is {note!r}", "write the note as text, or rename the key")
    # Whole characters: JSON may hold halves of them, and Arrow none.
    return row_id, Pick(stars=stars, note=note and note.encode("utf-8", "replace").decode())


def chosen_records(
    output: Output, names: Iterable[str], where: str | None, picks: Mapping[str, Pick] | None
) -> Iterator[pa.Table]:
    """Yield these columns of an output's records; of picks, only those that are picked."""
    if picks is None:
        yield from output.records([*names], where=where)
        return
    row_ids = pa.array(picks, pa.string())
    for table in labelled_records(output, ["row_id", *names], where, picks):
        yield table.filter(pc.is_in(table["row_id"], row_ids))


def with_labels(schema: pa.Schema) -> pa.Schema:
    """Return what a condition on picks may be about: columns of records, and `LABELS` in none of them."""
    return pa.schema([*schema, *(field for field in LABELS if field.name not in schema.names)])


def labelled_records(
    output: Output,
    names: Iterable[str],
    where: str | None,
    picks: Mapping[str, Pick],
    *,
    place: str = "where",
) -> Iterator[pa.Table]:
    """Yield these columns of records and those of a condition, which may be about `LABELS` they lack."""
    columns = [*dict.fromkeys(names)]
    if where is None:
        return output.records(columns)
    schema = output.schema()
    labels = [field for field in LABELS if field.name not in schema.names]
    wanted = dict.fromkeys([*columns, "row_id", *columns_in(where, schema, place=place)])

    def labelled(table: pa.Table) -> pa.Table:
        of_rows = [picks.get(row_id, Pick()) for row_id in table["row_id"].to_pylist()]
        for field in labels:
            cells = [getattr(pick, field.name) for pick in of_rows]
            table = table.append_column(field, pa.array(cells, field.type))
        return table

    tables = map(labelled, output.records([*wanted]))
    return rows_where(tables, where, with_labels(schema).names, place=place)


class PickKeeper:
    """Keeps picks for one server; for several threads."""

    def __init__(self, store: Store) -> None:
        self._store, self._files, self._lock = store, _PickFiles(store), threading.Lock()
        self._path = f"{PICK_FILES}/{uuid.uuid4().hex}.jsonl"
        self._own: dict[str, KeptPick] = {}
        self._seen: dict[str, int] = {}  # `at` of each clip, as of the last look

    def all(self) -> dict[str, KeptPick]:
        """Do what `read_picks` does."""
        picks = self._files.merged()
        self._seen = {row_id: pick.at for row_id, pick in picks.items()}
        return {row_id: pick for row_id, pick in picks.items() if pick.is_pick}

    def change(self, pick: PickChange) -> None:
        """Keep what is said of one clip, in place of what was; nothing of one without stars and note."""
        with self._lock:
            at = max(time.time_ns(), self._seen.get(pick.row_id, 0) + 1)
            dated = KeptPick(**pick.model_dump() | {"at": at})
            # Stored, or not kept at all: the caller learns which.
            self._store.write(self._path, _lines({**self._own, pick.row_id: dated}.values()))
            self._own[pick.row_id] = dated
            # Until stars.jsonl has what is there: another server's change may come meanwhile. That one's
            # server writes it, too, after its change: so the last to write has seen all.
            before, now = None, self.all()
            while now != before:
                self._store.write(PICKS, _lines(now.values()))
                before, now = now, self.all()


def _lines(picks: Iterable[KeptPick]) -> bytes:
    return "".join(f"{json.dumps(pick.model_dump(exclude_unset=True))}\n" for pick in picks).encode()
