"""In: an output. Out: the rows that failed there, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from framefleet.jobs.job.output import is_output, no_output
from framefleet.jobs.render.drafts_beside import drafts_of, no_records
from framefleet.pipeline.outputs.parts.part_names import parts_in
from framefleet.pipeline.outputs.parts.parts import rows_in_part
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, FAILURES
from framefleet.pipeline.outputs.stores.store import Store

_HINT = "\nhint: "  # as errors of ours are written, see `FramefleetError`
# Of those that are not ours, what people do about them.
_FIXES = {
    "OutOfMemory": "render fewer pixels or frames, or set model.offload or model.vae_tiling",
    "WorkerDied": "the row ends every worker it is on: look at the worker's log, and at its memory",
    "TypeError": "an argument does not fit the pipeline, or the recipe: see --traceback",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRow:
    """One row that was given up. positions: in its table. fix: "" where nobody knows one.

    is_draft: it is a draft of the job; else a row in full.
    """

    row_id: str
    positions: tuple[int, ...]
    error_type: str
    message: str
    fix: str
    attempts: int
    workers: tuple[str, ...]
    seed: int
    recipe: str
    arguments: str  # JSON
    failed_at: datetime
    traceback: str
    is_draft: bool = False


def failures(output: str, *, storage_options: Mapping[str, Any] | None = None) -> list[FailedRow]:
    """Return the rows of an output that failed and were not rendered since, in the order of their table.

    Its drafts first. storage_options: what fsspec takes. Raises JobError where there is no output.
    """
    found = all_failed_rows(output_at(output, storage_options, may_be_drafts=True))
    return sorted(found, key=lambda row: (not row.is_draft, row.positions))


def output_at(
    output: str, storage_options: Mapping[str, Any] | None, *, may_be_drafts: bool = False
) -> Store:
    """Return the store of an output. Raises JobError where nothing of one is there.

    may_be_drafts: drafts are enough, though no row is rendered in full yet.
    """
    store = Store(output, storage_options)
    if is_output(store):
        return store
    if drafts_of(store) is None:
        raise no_output(store)
    if not may_be_drafts:
        raise no_records(store)
    return store


def all_failed_rows(store: Store) -> Iterator[FailedRow]:
    """Yield those of an output's drafts, and then its own, as `failed_rows_of` does."""
    if drafts := drafts_of(store):
        yield from (replace(row, is_draft=True) for row in failed_rows_of(drafts))
    yield from failed_rows_of(store)


def failed_rows_of(store: Store) -> Iterator[FailedRow]:
    """Yield them as they were written; of a row that failed in several runs the last alone."""
    seen: set[str] = set()
    for part in reversed(parts_in(store, FAILURES)):
        for rows in rows_in_part(store, part.path, FAILURE_FIELDS):
            for row in reversed(rows):
                if row["row_id"] not in seen:
                    seen.add(row["row_id"])
                    yield _failed_row(row)


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
