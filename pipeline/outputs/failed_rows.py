"""In: an output. Out: the rows that failed there and have no record since, one after the other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.outputs.layout import FAILURES, ROWS
from framefleet.pipeline.outputs.parts.part_file import read_part
from framefleet.pipeline.outputs.parts.part_names import Part, parts_in
from framefleet.pipeline.outputs.parts.parts import read_parts, rows_in_table
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, FIRST_FIELDS, ROW_FIELDS, fields_named
from framefleet.pipeline.outputs.parts.seals import live_parts
from framefleet.pipeline.outputs.stores.store import Store

_HINT = "\nhint: "  # as errors of ours are written, see `FramefleetError`
# What people do about errors that are not ours.
_FIXES = {
    "OutOfMemory": "render fewer pixels or frames, or set model.offload or model.vae_tiling",
    "WorkerDied": "the row ends every worker it is on: look at the worker's log, and at its memory",
    "TypeError": "an argument does not fit the pipeline, or the recipe: see --traceback",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRow:
    """One row that was given up."""

    row_id: str
    positions: tuple[int, ...]  # in its table
    error_type: str
    message: str
    fix: str  # "" if nobody knows one
    attempts: int
    workers: tuple[str, ...]
    seed: int
    recipe: str
    arguments: str  # JSON
    failed_at: datetime
    traceback: str
    inner: str = ""  # the name of the output in the job's that it is of; "": the job's own


def failed_rows(store: Store) -> Iterator[FailedRow]:
    """Yield the rows of `failed_tables`, in its order."""
    for table in failed_tables(store):
        for rows in rows_in_table(table, store.url_of(FAILURES)):
            yield from map(_failed_row, rows)


def failed_tables(store: Store) -> Iterator[pa.Table]:
    """Yield the rows of `failed_row_ids` with the columns FAILURE_FIELDS, each once, the newest first.

    Of a row that failed in several runs it is the last failure.
    """
    left = failed_row_ids(store)
    for part in reversed(parts_in(store, FAILURES)) if left else ():
        table = read_part(store, part.path, FAILURE_FIELDS)
        places = []
        for place, row_id in reversed([*enumerate(table["row_id"].to_pylist())]):
            if row_id in left:
                left.discard(row_id)
                places.append(place)
        yield table.take(pa.array(places, pa.int64()))


def failed_row_ids(store: Store) -> set[str]:
    """Return the rows that failed, have no record, and are still in the table.

    A failure stays in failures/ until the next run ends: the row may have a record by then, or be gone.
    """
    failed = _ids(store, parts_in(store, FAILURES), FAILURE_FIELDS)
    if failed:
        failed -= _ids(store, live_parts(store), FIRST_FIELDS, among=failed)
    rows = parts_in(store, ROWS) if failed else []
    if rows:  # earlier versions did not write them
        failed = _ids(store, rows, ROW_FIELDS, among=failed)
    return failed


def _ids(
    store: Store, parts: Sequence[Part], fields: pa.Schema, *, among: Collection[str] | None = None
) -> set[str]:
    """Return the row_ids in these parts; among: only those of these."""
    asked = None if among is None else pa.array(among, pa.string())
    found: set[str] = set()
    for table in read_parts(store, [part.path for part in parts], fields_named(fields, "row_id")):
        ids = table["row_id"]
        found.update((ids if asked is None else ids.filter(pc.is_in(ids, asked))).to_pylist())
    return found


def _failed_row(row: Mapping[str, Any]) -> FailedRow:
    problem, _, fix = row["message"].partition(_HINT)
    return FailedRow(
        row_id=row["row_id"],
        positions=tuple(row["row_indices"]),
        error_type=row["error_type"],
        message=problem,
        fix=fix or _FIXES.get(row["error_type"], ""),
        attempts=row["attempts"],
        workers=tuple(row["workers"]),
        seed=row["seed"],
        recipe=row["recipe"],
        arguments=row["arguments"],
        failed_at=row["failed_at"],
        traceback=row["traceback"],
    )
