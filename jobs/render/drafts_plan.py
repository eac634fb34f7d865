"""From a job with drafts to how many rows it renders in full, at the most, before there are drafts."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import pyarrow as pa

from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.chosen import check_choice
from framefleet.jobs.render.draft_job import draft_job
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from framefleet.pipeline.scores.choice import Keep


def most_kept(job: Job, keep: Keep) -> int:
    """Return how many drafts can be kept: of distinct rows, by the groups that they make.

    A column that only records have makes one group for each row. Reads the whole table.
    """
    groups: Counter[int] = Counter()
    seen: set[int] = set()  # of rows, by hashes: a hundred bytes each
    with closing(resolve_job(draft_job(job), Callback())) as drafts:
        check_choice(drafts, keep)
        for first, batch in drafts.table.batches():
            for row in drafts.rows.read(first, batch):
                if isinstance(row, IdentifiedRow) and (mark := hash(row.row_id)) not in seen:
                    seen.add(mark)
                    groups[hash(_group(row, keep, batch.slice(row.index - first, 1)))] += 1
    return sum(groups.values()) if keep.best is None else sum(min(keep.best, n) for n in groups.values())


def _group(row: IdentifiedRow, keep: Keep, of_table: pa.RecordBatch) -> tuple[str, ...]:
    """Return what tells the row's group from others, as far as its table says."""
    arguments = row.request().arguments
    cells = {**dict(zip(of_table.schema.names, of_table.columns, strict=True)), **arguments}
    return tuple(str(cells.get(name, row.row_id)) for name in keep.per)
