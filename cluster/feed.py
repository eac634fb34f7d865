"""From the table to the rows that wait: those without a record, each distinct one once, in table order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from framefleet.cluster.lease import Row
from framefleet.pipeline.index import RowIndex
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows import CheckedRow, RowPlan
from framefleet.pipeline.table import Table


@dataclass(frozen=True, slots=True)
class Pending:
    """What the driver keeps of a row while it is being rendered."""

    request: Request
    carried: pa.RecordBatch  # one row


def pending_rows(table: Table, plan: RowPlan, index: RowIndex) -> Iterator[Row]:
    """Yield every row that is still to render."""
    for first, batch in table.batches():
        row_ids = {
            position: row_id
            for position, row_id in index.pending_in(first, batch.num_rows)
            if position < first + batch.num_rows
        }
        if not row_ids:
            continue
        carried = batch.select(list(plan.carried))
        for row in plan.rows(first, batch):
            if isinstance(row, CheckedRow) and row.index in row_ids:
                payload = Pending(row.request, carried.slice(row.index - first, 1))
                yield Row(row_id=row_ids[row.index], shape=row.shape, payload=payload)
