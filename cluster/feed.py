"""From the table to the rows that wait: those without a record, each distinct one once, in table order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from framefleet.cluster.lease import Row
from framefleet.pipeline.errors import TableError
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.source import RowSource
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow, TableRows


@dataclass(frozen=True, slots=True)
class Pending:
    """What the driver keeps of a row while it is being rendered."""

    request: Request
    carried: pa.RecordBatch  # one row


def pending_rows(table: RowSource, rows: TableRows, index: RowIndex) -> Iterator[Row]:
    """Yield every row that is still to render. Raises TableError when the table is not what it was.

    rows: as the first pass left them, which knows what they have in common. Each row's own row_id must be the
    one that the index has for its position.
    """
    num_yielded = 0
    for first, batch in table.batches():
        row_ids = dict(index.pending_in(first, batch.num_rows))
        if not row_ids:
            continue
        carried = rows.plan.carried.of(batch)
        for row in rows.read(first, batch, only=row_ids):
            if not isinstance(row, IdentifiedRow) or row.row_id != row_ids[row.index]:
                raise _changed(table, f"row {row.index} is another")
            num_yielded += 1
            payload = Pending(row.request(), carried.slice(row.index - first, 1))
            yield Row(row_id=row.row_id, shape=row.shape, payload=payload)
    if num_yielded < index.counts().pending:
        raise _changed(table, "rows are gone")


def by_prompt_lengths(
    rows: list[Row], lengths: Callable[[Sequence[Mapping[str, Any]]], list[tuple[int, ...]] | None]
) -> list[Row]:
    """Return the rows with the lengths of their prompts as part of their shapes, where they are counted.

    lengths: from rows' arguments; None where they are not.
    """
    payloads = [row.payload for row in rows]
    counted = lengths([payload.request.arguments for payload in payloads if isinstance(payload, Pending)])
    if counted is None:
        return rows
    return [replace(row, shape=f"{row.shape} {own}") for row, own in zip(rows, counted, strict=True)]


def _changed(table: RowSource, what: str) -> TableError:
    return TableError(
        f"table {table.location} was changed while the job ran: {what}", "run the same command again"
    )
