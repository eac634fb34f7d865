"""From an output with rows that failed to another run of just these, by the ordinary means of `render`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framefleet.cluster.driver.progress import Progress, Summary
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.claimed_job import job_of
from framefleet.jobs.render.draft_job import draft_job
from framefleet.jobs.render.render import render_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.parts.part_names import parts_in
from framefleet.pipeline.outputs.parts.parts import rows_in_part
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, FAILURES, fields_named
from framefleet.pipeline.outputs.stores.store import Store

_READ = fields_named(FAILURE_FIELDS, "row_id", "error_type", "message")


@dataclass(slots=True)
class FailedRows:
    """What is in failures/, of drafts too. examples: one message for each type of error."""

    num_by_type: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    row_ids: set[str] = field(default_factory=set)


def retry(
    job: Job | str | Path | Mapping[str, Any],
    *,
    error_types: Collection[str] = (),
    sets: Sequence[str] = (),
    on_progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Render the rows of a job again that failed, and no others; return how many were done, how many failed.

    job: an output, whose job.json says the rest; or a job file, or its content. error_types: only those of
    these errors, as "OutOfMemory". sets: as "fleet.workers=2". Raises as `render` does.
    """
    resolved = job_of(job, sets)
    failed = failed_rows(resolved, error_types)
    if not failed.row_ids:
        store = Store(resolved.output, resolved.storage_options)
        return Summary(done=0, failed=0, elapsed_s=0.0, mean_batch=None, store=store)
    return render_job(resolved, Callback(on_progress), only=failed.row_ids)


def failed_rows(job: Job, error_types: Collection[str] = ()) -> FailedRows:
    """Return what failed of a job and of its drafts, of these types or of all."""
    found = FailedRows()
    for place in (job, draft_job(job)) if job.draft else (job,):
        for row in _failures_of(Store(place.output, place.storage_options)):
            kind = row["error_type"]
            if not error_types or kind in error_types:
                found.num_by_type[kind] += 1
                found.examples.setdefault(kind, row["message"])
                found.row_ids.add(row["row_id"])
    return found


def _failures_of(store: Store) -> Iterator[Mapping[str, Any]]:
    for part in parts_in(store, FAILURES):
        for rows in rows_in_part(store, part.path, _READ):
            yield from rows
