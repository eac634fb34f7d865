"""In: an output. Out: the rows that failed there, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.parts.part_names import parts_in
from framefleet.pipeline.outputs.parts.parts import rows_in_part
from framefleet.pipeline.outputs.parts.records import CLAIM, FAILURE_FIELDS, FAILURES
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
    """One row that was given up. positions: in its table. fix: "" where nobody knows one."""

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


def failures(output: str, *, storage_options: Mapping[str, Any] | None = None) -> list[FailedRow]:
    """Return the rows of an output that failed and were not rendered since, in the order of their table.

    storage_options: what fsspec takes. Raises JobError where there is no output.
    """
    return sorted(failed_rows_of(output_at(output, storage_options)), key=lambda row: row.positions)


def output_at(output: str, storage_options: Mapping[str, Any] | None) -> Store:
    """Return the store of an output. Raises JobError where nothing of one is there."""
    store = Store(output, storage_options)
    if not (store.exists(CLAIM) or store.list("drivers") or store.list("records")):
        raise JobError(
            f"{store.url_of('')} is not an output: it has neither {CLAIM} nor records", "check the path"
        )
    return store


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
