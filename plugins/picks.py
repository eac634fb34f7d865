"""Stars and notes that people give to clips, also through several servers at once; and files of picked rows.

  stars/<server>.jsonl   picks of one server, a line per clip; only this server writes it
  stars.jsonl            all picks together, for people and other programs; written again after every change

No server writes another's file, so no change is lost in any kind of store. Readers merge the files, and the
newest line of a clip counts. Lines that people write by hand are only in stars.jsonl, and may have a row_id
without stars.
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
_STAMP_S = 2.0  # the coarsest clock of a file system; two changes within this time may look alike


class PickChange(BaseModel):
    """The pick of one clip, or a change to it."""

    model_config = ConfigDict(strict=True)

    row_id: Annotated[str, Field(pattern=ROW_ID)]
    stars: Annotated[int, Field(ge=0, le=_MAX_STARS)] = 0
    note: Annotated[str, Field(max_length=10_000)] = ""


class KeptPick(PickChange):
    """at: the larger one counts. In nanoseconds, but always above what its server has seen for the clip."""

    at: Annotated[int, Field(ge=0)] = 0

    @property
    def is_pick(self) -> bool:
        """Whether the clip is picked; False if its pick was taken back."""
        return bool(self.stars or self.note) or "stars" not in self.model_fields_set


_KEPT = TypeAdapter(KeptPick)


def read_picks(store: Store) -> dict[str, KeptPick]:
    """Return the picks of an output, by row_id. Raises JobError for an invalid line."""
    return {row_id: pick for row_id, pick in _PickFiles(store).merged().items() if pick.is_pick}


class _PickFiles:
    """The files of an output's picks. Each is read again only when it changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # For each file: how it was stored, since when, whether it was read well after that, and its picks.
        self._read: dict[str, tuple[Stored, float, bool, list[KeptPick]]] = {}

    def merged(self) -> dict[str, KeptPick]:
        """Return the current pick of each clip, including those taken back."""
        latest: dict[str, KeptPick] = {}
        details = self._store.details(PICK_FILES)
        # Comes last, since people who edit a line by hand leave its `at` unchanged.
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
    """Stars and note of a row in a file of picks, or None."""

    stars: int | None = None
    note: str | None = None


# Columns for picks.
LABELS = pa.schema([("stars", pa.int64()), ("note", pa.string())])


def picked(
    picks: str | Path | Collection[str] | None, storage_options: Mapping[str, Any]
) -> dict[str, Pick] | None:
    """Return the picked rows; None for all.

    picks: row_ids, or the path or URL of a JSONL file with `row_id`, stars and note of each row. Rows with 0
    stars are not picked.
    """
    if picks is None:
        return None
    if not isinstance(picks, str | Path):
        return {row_id: Pick() for row_id in picks}
    place = str(picks)
    folder, _, name = place.rpartition("/")
    if name in ("", "."):
        raise JobError(f"picks: {place!r} is a folder", "give the file that the gallery saved")
    store = Store(folder or ("/" if place.startswith("/") else "."), storage_options)
    try:
        content = store.read(name, _MAX_BYTES + 1)
        if name == PICKS and store.list(PICK_FILES):  # servers have files of their own
            content = _lines(read_picks(store).values())
    except FileNotFoundError:
        problem = f"picks: {place} does not exist"
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
        raise JobError(f"picks: {where} has no row_id of 32 hex digits", "copy it from a record")
    stars, note = pick.get("stars"), pick.get("note")
    if stars is not None and (type(stars) is not int or not 0 <= stars <= _MAX_STARS):
        raise JobError(f"picks: {where}: stars is {stars!r}", f"use a whole number from 0 to {_MAX_STARS}")
    if note is not None and not isinstance(note, str):
        raise JobError(f"picks: {where}: note is {note!r}", "write the note as text, or rename the key")
    # JSON may contain lone surrogates, but Arrow may not.
    return row_id, Pick(stars=stars, note=note and note.encode("utf-8", "replace").decode())


def chosen_records(
    output: Output, names: Iterable[str], where: str | None, picks: Mapping[str, Pick] | None
) -> Iterator[pa.Table]:
    """Yield these columns of an output's records; with picks, only of picked rows."""
    if picks is None:
        yield from output.records([*names], where=where)
        return
    row_ids = pa.array(picks, pa.string())
    for table in labelled_records(output, ["row_id", *names], where, picks):
        yield table.filter(pc.is_in(table["row_id"], row_ids))


def _labels(schema: pa.Schema, picks: Mapping[str, Pick]) -> pa.Schema:
    """Return those of `LABELS` that picks have, and those that records lack.

    Records carry others, e.g. those of the picks that their table was made of.
    """
    given = {field.name for field in LABELS if any(getattr(pick, field.name) for pick in picks.values())}
    return pa.schema([field for field in LABELS if field.name in given or field.name not in schema.names])


def with_labels(schema: pa.Schema, picks: Mapping[str, Pick]) -> pa.Schema:
    """Return the columns for a condition on picks: labels, and those of records with other names."""
    labels = _labels(schema, picks)
    return pa.schema([*(field for field in schema if field.name not in labels.names), *labels])


def labelled_records(
    output: Output,
    names: Iterable[str],
    where: str | None,
    picks: Mapping[str, Pick],
    *,
    place: str = "where",
) -> Iterator[pa.Table]:
    """Yield these columns of records and those of a condition, which may be about `with_labels`."""
    columns = [*dict.fromkeys(names)]
    if where is None:
        return output.records(columns)
    schema = output.schema()
    labels = _labels(schema, picks)
    wanted = dict.fromkeys([*columns, "row_id", *columns_in(where, schema, place=place)])
    carried = {name: f"{name} of the record" for name in labels.names if name in wanted}

    def labelled(table: pa.Table) -> pa.Table:
        of_rows = [picks.get(row_id, Pick()) for row_id in table["row_id"].to_pylist()]
        table = table.rename_columns([carried.get(name, name) for name in table.column_names])
        for field in labels:
            cells = [getattr(pick, field.name) for pick in of_rows]
            table = table.append_column(field, pa.array(cells, field.type))
        return table

    def as_recorded(table: pa.Table) -> pa.Table:
        names = {of_record: name for name, of_record in carried.items()}
        table = table.drop_columns([*carried])
        return table.rename_columns([names.get(name, name) for name in table.column_names])

    tables = map(labelled, output.records([*wanted]))
    return map(as_recorded, rows_where(tables, where, with_labels(schema, picks).names, place=place))


class PickKeeper:
    """Keeps picks for one server. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store, self._files, self._lock = store, _PickFiles(store), threading.Lock()
        self._path = f"{PICK_FILES}/{uuid.uuid4().hex}.jsonl"
        self._own: dict[str, KeptPick] = {}
        self._seen: dict[str, int] = {}  # last seen `at` of each clip

    def all(self) -> dict[str, KeptPick]:
        """Return all picks, as `read_picks` does."""
        picks = self._files.merged()
        self._seen = {row_id: pick.at for row_id, pick in picks.items()}
        return {row_id: pick for row_id, pick in picks.items() if pick.is_pick}

    def change(self, pick: PickChange) -> None:
        """Replace the pick of one clip; without stars and note, remove it."""
        with self._lock:
            at = max(time.time_ns(), self._seen.get(pick.row_id, 0) + 1)
            dated = KeptPick(**pick.model_dump() | {"at": at})
            # If storing fails, nothing is kept, and the caller gets the error.
            self._store.write(self._path, _lines({**self._own, pick.row_id: dated}.values()))
            self._own[pick.row_id] = dated
            # Repeat until stars.jsonl has everything, as another server may make a change meanwhile. That
            # server also writes the file after its change, so the last one to write has seen all changes.
            before, now = None, self.all()
            while now != before:
                self._store.write(PICKS, _lines(now.values()))
                before, now = now, self.all()


def _lines(picks: Iterable[KeptPick]) -> bytes:
    return "".join(f"{json.dumps(pick.model_dump(exclude_unset=True))}\n" for pick in picks).encode()
