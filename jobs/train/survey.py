"""The first pass over a training's table: every row and its video is checked before anything is trained."""

from __future__ import annotations

import uuid

import pyarrow as pa

from framefleet.jobs.render.survey import MAX_SHOWN, Survey, check_valid, reasons
from framefleet.jobs.show.progress_values import Checked
from framefleet.jobs.show.watch import Watch
from framefleet.jobs.train.resolve import ResolvedTraining
from framefleet.pipeline.outputs.layout import INVALID
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import invalid_schema
from framefleet.pipeline.rows.tables.row_cells import repaired_row
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.pipeline.training.dataset.rows import TrainingRows
from framefleet.pipeline.training.dataset.survey import survey


def survey_training(resolved: ResolvedTraining, watch: Watch) -> TrainingRows:
    """Return the rows to train on. Raises TableError for others, unless the job leaves them out.

    Those that are left out are in invalid/, in place of those of earlier runs.
    """
    store, table, is_skipping = resolved.store, resolved.columns.table, resolved.job.on_invalid == "skip"
    earlier = store.list(INVALID)
    writer = PartWriter(store, INVALID, invalid_schema(table.schema), run=uuid.uuid4().hex)
    found = Survey()

    def refused(row: InvalidRow, cells: pa.RecordBatch) -> None:
        found.num_invalid += 1
        if len(found.invalid) < MAX_SHOWN:
            found.invalid.append(row)
        if is_skipping:
            writer.add(repaired_row(cells), reasons(row))
            if writer.due(0.0):
                writer.flush()

    def checked(num_rows: int) -> None:
        watch.show(Checked(num_rows=num_rows))

    columns, buckets, inputs = resolved.columns, resolved.buckets, resolved.inputs
    rows = survey(columns, buckets, inputs, store=store, refused=refused, checked=checked)
    found.find_places(table)
    found.num_rows = len(rows) + found.num_invalid
    check_valid(found, table, on_invalid=resolved.job.on_invalid, verb="trained on")
    if is_skipping:
        writer.flush()
        for path in earlier:
            store.delete(path)
    left_out = f", {found.num_invalid:,} left out (see {INVALID}/)" if found.num_invalid else ""
    watch.say(f"{len(rows):,} rows to train on{left_out}")
    return rows
