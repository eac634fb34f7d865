"""From the table to the dispatcher's window, while it has room: which rows wait, and in which order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from framefleet.cluster.dispatch.dispatcher import Dispatcher
from framefleet.cluster.dispatch.lease import Row
from framefleet.cluster.driver.run import Run
from framefleet.pipeline.errors import TableError
from framefleet.pipeline.render.audit.verdict import kind_of
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.identity import AS_TABLE, LaneKey, lane_of, rank_of
from framefleet.pipeline.rows.sweeps.sweep import RowSource
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow, ModelRows

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pending:
    """What the driver keeps of a row while it is being rendered."""

    request: Request
    carried: pa.RecordBatch  # one row
    position: int  # its first in the table
    kind: str  # what audits count it as

    @property
    def lane(self) -> LaneKey:
        return lane_of(self.request)


class Feed:
    """Reads the table, and reads it again for rows that must be rendered again."""

    def __init__(
        self,
        run: Run,
        dispatcher: Dispatcher,
        pending: dict[str, Pending],  # gets the rows that wait or are leased
        adopts: Callable[[str, Pending], bool],  # takes a row that needs no rendering; returns whether it did
        *,
        lane: LaneKey,  # the one whose rows are read
        table: RowSource,
    ) -> None:
        self._pending, self._lane = pending, lane
        self._run, self._dispatcher, self._adopts = run, dispatcher, adopts
        self.table = table  # to be read from the next pass on
        self._rows = self._pass()

    def fill(self) -> None:
        while room := self._dispatcher.room:
            rows = list(islice(self._rows, room))
            self.num_unread -= len(rows)
            pending = {row.row_id: row.payload for row in rows if isinstance(row.payload, Pending)}
            fresh = [row for row in rows if not self._adopts(row.row_id, pending[row.row_id])]
            for row in fresh:
                self._pending[row.row_id] = pending[row.row_id]
                self._dispatcher.add(row)
            if len(rows) == room:
                continue
            if not self._run.index.reopen(self._lane):
                self._dispatcher.close()
                return
            self._rows = self._pass()

    def _pass(self) -> Iterator[Row]:
        run, index, lane = self._run, self._run.index, self._lane
        # Counted here and now: rows that are added before the first is read are not in this table.
        num_pending = self.num_unread = index.num_pending(lane)
        return pending_rows(self.table, run.rows, index, num_pending=num_pending, order=run.order, lane=lane)


def pending_rows(
    table: RowSource,
    rows: ModelRows,
    index: RowIndex,
    *,
    num_pending: int | None = None,
    order: str = AS_TABLE,
    lane: LaneKey | None = None,
) -> Iterator[Row]:
    """Yield every row that is still to be rendered. Raises TableError if the table has changed.

    rows: as the first pass left them, which knows what they have in common. Each row must have the row_id
    that the index has for its position. num_pending: how many rows there must be. lane: only its rows.
    """
    num_pending, num_yielded = index.num_pending(lane) if num_pending is None else num_pending, 0
    for first, batch in table.batches(start=index.first_pending(lane)):
        if num_yielded == num_pending:
            return  # without reading the rest of the table, which may be nearly all of it
        row_ids = dict(index.pending_in(first, batch.num_rows, lane))
        if not row_ids:
            continue
        carried = rows.carried.of(batch)
        for row in rows.read(first, batch, only=row_ids):
            if not isinstance(row, IdentifiedRow) or row.row_id != row_ids[row.index]:
                raise _changed(table, f"row {row.index} has changed")
            num_yielded += 1
            request = row.request()
            own = carried.slice(row.index - first, 1)
            if len(row_ids) < batch.num_rows:
                own = pa.concat_batches([own])  # a copy: a slice keeps all of its batch in memory
            payload = Pending(request, own, row.index, kind_of(request))
            rank = 0.0 if order == AS_TABLE else rank_of(order, payload.request, payload.carried)
            yield Row(row_id=row.row_id, shape=row.shape, payload=payload, rank=rank)
    if num_yielded < num_pending:
        raise _changed(table, "rows are gone")


def _changed(table: RowSource, what: str) -> TableError:
    return TableError(
        f"table {table.location} was changed while the job ran: {what}", "run the same command again"
    )
