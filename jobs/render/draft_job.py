"""From a job with drafts to the job that renders them, and to which of them are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pyarrow as pa

from framefleet.jobs.job.output import below
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.chosen import check_choice
from framefleet.jobs.render.resolve import names_of, resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.layout import DRAFTS
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from framefleet.pipeline.scores.choice import Keep, check_keep
from framefleet.pipeline.scores.score import OWN_SCORES


def draft_job(job: Job) -> Job:
    """Return the job that renders the drafts: the same rows with other arguments, and scores."""
    assert job.draft is not None
    changed = {
        "output": below(job, DRAFTS),
        "overrides": {**job.overrides, **job.draft.arguments},
        "scores": job.scores or list(OWN_SCORES),
        "draft": None,
    }
    return job.model_copy(update=changed)


def keep_of(job: Job) -> Keep:
    """Return which drafts are kept. Raises JobError for what is not measured of them."""
    assert job.draft is not None
    given = job.draft.keep
    keep = Keep(best=given.best, per=tuple(given.per), by=given.by, where=given.where)
    check_keep(keep, names_of(draft_job(job)))
    return keep


def most_kept(job: Job, keep: Keep) -> int:
    """Return how many drafts can be kept: of distinct rows, by the groups that they make.

    A column that only records have makes one group for each row. Reads the whole table.
    """
    groups: Counter[int] = Counter()
    seen: set[int] = set()  # of rows, by hashes: a hundred bytes each
    with closing(resolve_job(draft_job(job), Callback())) as drafts:
        check_choice(drafts, keep)
        unset = dict.fromkeys(drafts.plan.argument_fields.names)
        for first, batch in drafts.table.batches():
            for row in drafts.rows.read(first, batch):
                if isinstance(row, IdentifiedRow) and (mark := hash(row.row_id)) not in seen:
                    seen.add(mark)
                    cells = unset | _cells(drafts.plan.carried.of(batch.slice(row.index - first, 1)))
                    groups[hash(_group(row, keep, cells))] += 1
    return sum(groups.values()) if keep.best is None else sum(min(keep.best, n) for n in groups.values())


def _cells(of_table: pa.RecordBatch) -> dict[str, Any]:
    """Return what is carried of one row."""
    return dict(zip(of_table.schema.names, of_table.columns, strict=True))


def _group(row: IdentifiedRow, keep: Keep, cells: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what tells the row's group from others, as far as is known. cells: what no argument hides."""
    told = {**cells, **row.request().arguments}
    return tuple(str(told.get(name, row.row_id)) for name in keep.per)
