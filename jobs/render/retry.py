"""From an output with rows that failed to another run of just these, by the ordinary means of `render`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framefleet.cluster.driver.progress import Progress, Summary
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.output_job import job_of
from framefleet.jobs.render.render import render_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.outputs.stores.store import Store


@dataclass(slots=True)
class FailedRows:
    """Rows that failed, of inner outputs too. examples: one message for each type of error."""

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
    failed = rows_to_retry(resolved, error_types)
    if not failed.row_ids:
        store = Store(resolved.output, resolved.storage_options)
        return Summary(done=0, failed=0, elapsed_s=0.0, mean_batch=None, store=store)
    return render_job(resolved, Callback(on_progress), only=failed.row_ids)


def rows_to_retry(job: Job, error_types: Collection[str] = ()) -> FailedRows:
    """Return what failed of a job and of its inner outputs, of these types or of all."""
    found = FailedRows()
    for row in Output(Store(job.output, job.storage_options)).failures():
        if not error_types or row.error_type in error_types:
            found.num_by_type[row.error_type] += 1
            found.examples.setdefault(row.error_type, row.message)
            found.row_ids.add(row.row_id)
    return found
