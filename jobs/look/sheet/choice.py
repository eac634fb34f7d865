"""In: an output and what is asked of it. Out: the records whose clips are shown, and where each stands."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from framefleet.jobs.look.sheet.axes import Placed, Sides, note_value, placed, side_names, side_of
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.spelling import nearest
from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.outputs.parts.parts import rows_of
from framefleet.pipeline.outputs.parts.record_tables import record_schema_of
from framefleet.pipeline.outputs.parts.records import told_arguments
from framefleet.pipeline.outputs.recorded_frames import FRAMES_OF
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.outputs.where import records_where

_READ = [*FRAMES_OF, "row_indices", "fps", "seed", "arguments", "frames_sha256"]
MAX_CLIPS = 1000  # more are no picture that anybody looks at
_MAX_VALUE = 500  # characters of a text beside a grid


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipChoice:
    """What is asked for. rows, columns: names of columns, along the sides. where: SQL on records' columns.

    pages: the name of a column of which each value has a page of its own; page: that of this one. limit: so
    many clips at most. captions: columns that are told below each clip; () is prompt and seed.
    """

    rows: str | None = None
    columns: str | None = None
    where: str | None = None
    limit: int = 60
    captions: tuple[str, ...] = ()
    pages: str | None = None
    page: Hashable = None

    @property
    def names(self) -> list[str]:
        return [name for name in (self.rows, self.columns, self.pages, *self.captions) if name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The clips of a picture. row_names, column_names: beside them, [] where they stand in the table's order.

    num_found: records there are, in this choice. num_more: of these, in a cell that is taken.
    """

    clips: list[Placed]
    row_names: list[str]
    column_names: list[str]
    num_found: int
    num_more: int = 0


def chosen_of(store: Store, choice: ClipChoice) -> Chosen:
    """Return what is shown. Raises JobError for a column that nothing has, and where there is no clip."""
    if not 1 <= choice.limit <= MAX_CLIPS:
        raise JobError(f"limit is {choice.limit}", f"use 1 to {MAX_CLIPS:,}")
    _check_names(store, choice)
    chosen = _by_axes(store, choice) if choice.rows or choice.columns else _in_order(store, choice)
    if not chosen.clips:
        which = f" where {choice.where}" if choice.where else ""
        raise JobError(f"{store.url_of(RECORDS)} has no clip{which}", "wait for the first, or ask for others")
    return chosen


def pages_of(store: Store, choice: ClipChoice) -> Iterator[tuple[str, Chosen]]:
    """Yield each page, with the value that it is for, as numbers by size and others in the table's order.

    The limit is shared by all; those that it has no room for are not shown. Raises as `chosen_of` does.
    """
    if choice.pages is None:
        yield "", chosen_of(store, choice)
        return
    _check_names(store, choice)
    first_seen: dict[Hashable, int] = {}
    for record in _records(store, choice, of_all_pages=True):
        note_value(first_seen, value_of(record, choice.pages), _position(record), choice.pages)
    values = side_of(first_seen, choice.limit)
    limit = max(1, choice.limit // max(1, len(values)))
    for value, name in zip(values, side_names(values, choice.pages), strict=True):
        yield name, chosen_of(store, replace(choice, page=value, limit=limit))


def value_of(record: Mapping[str, Any], name: str) -> Hashable:
    """Return what a record says: in a column, or where an earlier version wrote it in its arguments."""
    value = record.get(name)
    if value is None:
        value = told_arguments(record).get(name)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)[:_MAX_VALUE]


def _check_names(store: Store, choice: ClipChoice) -> None:
    """Raise JobError for a column that neither the records nor the first row's arguments have."""
    known = list(record_schema_of(store).names)
    first = next(_records(store, choice, of_all_pages=True), None)
    known += [name for name in (told_arguments(first) if first else {}) if name not in known]
    for name in choice.names if first else ():
        if name not in known:
            near = nearest(name, known)
            fix = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"
            raise JobError(f"{store.url_of(RECORDS)} has no column {name!r}", fix)


def _records(store: Store, choice: ClipChoice, *, of_all_pages: bool = False) -> Iterator[dict[str, Any]]:
    """Yield what is read of the records with a picture that the condition holds for, and of this page."""
    is_whole = of_all_pages or choice.pages is None
    for table in records_where(store, [*_READ, *choice.names], choice.where):
        for record in rows_of(table, store.url_of(RECORDS)):
            if record["frames_sha256"] and (is_whole or value_of(record, choice.pages or "") == choice.page):
                yield record


def _in_order(store: Store, choice: ClipChoice) -> Chosen:
    """Return the first clips by their position in the table, in as many columns as make it square."""
    num_found = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal num_found
        for record in _records(store, choice):
            num_found += 1
            yield record

    first = heapq.nsmallest(choice.limit, counted(), key=_position)
    width = max(1, math.ceil(math.sqrt(len(first))))
    clips = [
        Placed(record=record, row=place // width, column=place % width) for place, record in enumerate(first)
    ]
    return Chosen(clips=clips, row_names=[], column_names=[], num_found=num_found)


def _by_axes(store: Store, choice: ClipChoice) -> Chosen:
    sides, num_found = _sides(store, choice)
    clips, num_more = placed(_valued(store, choice), sides)
    return Chosen(
        clips=clips,
        row_names=side_names(sides.rows, choice.rows) if choice.rows else [],
        column_names=side_names(sides.columns, choice.columns) if choice.columns else [],
        num_found=num_found,
        num_more=num_more,
    )


def _sides(store: Store, choice: ClipChoice) -> tuple[Sides, int]:
    """Return the values along both sides, as many as the limit has room for, and how many records are."""
    num_found = 0
    rows: dict[Hashable, int] = {}
    columns: dict[Hashable, int] = {}
    for record, row, column in _valued(store, choice):
        num_found += 1
        note_value(rows, row, _position(record), choice.rows or "")
        note_value(columns, column, _position(record), choice.columns or "")
    across = min(len(columns), max(1, choice.limit // max(1, min(len(rows), math.isqrt(choice.limit)))))
    down = max(1, choice.limit // max(1, across))
    return Sides(rows=side_of(rows, down), columns=side_of(columns, across)), num_found


def _valued(store: Store, choice: ClipChoice) -> Iterator[tuple[dict[str, Any], Hashable, Hashable]]:
    """Yield records with what they say in both columns; where one is not asked for, their number."""
    seen: Counter[Hashable] = Counter()
    for record in _records(store, choice):
        row = value_of(record, choice.rows) if choice.rows else None
        column = value_of(record, choice.columns) if choice.columns else None
        if choice.rows is None or choice.columns is None:
            value = column if choice.rows is None else row
            number = seen[value]
            seen[value] += 1
            yield (record, number, column) if choice.rows is None else (record, row, number)
        else:
            yield record, row, column


def _position(record: Mapping[str, Any]) -> int:
    positions = record["row_indices"]
    return int(positions[0]) if positions else 0
