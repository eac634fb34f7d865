"""From the table to the dispatcher's window, while it has room: which rows wait, and how they are grouped."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pyarrow as pa

from framefleet.cluster.dispatch.dispatcher import Dispatcher, GivenUp
from framefleet.cluster.dispatch.fault_policy import FaultPolicy
from framefleet.cluster.dispatch.lease import Row
from framefleet.cluster.driver.work import Work
from framefleet.cluster.worker.messages import Failed, WorkerSetup
from framefleet.pipeline.errors import TableError
from framefleet.pipeline.render.audit.verdict import kind_of
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.identity import AS_TABLE, rank_of
from framefleet.pipeline.rows.lane_key import LaneKey, lane_of
from framefleet.pipeline.rows.prompt_lengths import CountedApart
from framefleet.pipeline.rows.sweeps.sweep import RowSource
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow, ModelRows

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pending:
    """What the driver keeps of a row while it is being rendered.

    position: its first in the table. kind: what audits count it as.
    """

    request: Request
    carried: pa.RecordBatch  # one row
    position: int
    kind: str

    @property
    def lane(self) -> LaneKey:
        return lane_of(self.request)


def encoding_setup(setup: WorkerSetup) -> WorkerSetup:
    """Return the setup of a worker that encodes for those with `setup`: one row at a time."""
    batching = replace(setup.batching, max_rows=1)
    return replace(setup, stage="encode", batching=batching, checkpoint_every_s=0.0, steps={})


class EncodeFirst:
    """Rows whose text some workers encode and others denoise: two dispatchers, filled as if they were one.

    A row goes to the second once its embeddings are in the store, and back where they are not found there.
    first: of the workers that encode. then: of those that denoise. Together they hold no more rows than one.
    """

    def __init__(self, first: Dispatcher, then: Dispatcher, faults: FaultPolicy) -> None:
        self._first, self._then, self._faults = first, then, faults
        self._num_returns: Counter[str] = Counter()  # by row_id, of those that came back

    @property
    def room(self) -> int:
        """How many more rows may wait, for either."""
        counts = self._first.counts
        return max(0, min(self._first.room, self._then.room - counts.waiting - counts.leased))

    def add(self, row: Row) -> None:
        self._first.add(row)

    def regroup(self, reshaped: Callable[[list[Row]], list[Row]]) -> None:
        """Give waiting rows the shapes that are known now."""
        self._first.regroup(reshaped)
        self._then.regroup(reshaped)

    def close(self) -> None:
        """The table is exhausted; `settle` closes the second dispatcher."""
        self._first.close()

    def settle(self) -> None:
        """Close the second dispatcher if no row can reach it any more."""
        if self._first.finished:
            self._then.close()

    def encoded(self, worker: str, row_id: str, now: float) -> bool:
        """Pass on a row whose embeddings are in the store; return whether that is new."""
        row = self._first.row_of(worker, row_id)
        if row is None or not self._first.done(worker, row_id, now):
            return False
        self._then.add(row)
        return True

    def came_back(self, worker: str, failed: Failed) -> GivenUp | None:
        """Encode a row's text again; return the row if it came back too often."""
        row = self._then.withdraw(worker, failed.row_id)
        if row is None:
            return None
        self._num_returns[row.row_id] += 1
        if self._faults.gives_up(num := self._num_returns[row.row_id]):
            reason = f"its text was encoded {num} times, and never found where it is rendered"
            return GivenUp(row=row, attempts=num, errors=((worker, failed),), reason=reason)
        self._first.reopen()
        self._then.reopen()
        self._first.add(row)
        return None


class Feed:
    """Reads the table, and once more for rows that are to be rendered again.

    pending: gets the rows that wait or are leased. adopts: takes a row that needs no rendering, and says so.
    lane: the one whose rows are read. table: to be read from the next pass on. num_unread: rows that this
    pass will read.
    """

    def __init__(
        self,
        work: Work,
        dispatcher: Dispatcher | EncodeFirst,
        pending: dict[str, Pending],
        adopts: Callable[[str, Pending], bool],
        *,
        lane: LaneKey,
        table: RowSource,
    ) -> None:
        self._pending, self._lane = pending, lane
        self._work, self._dispatcher, self._adopts = work, dispatcher, adopts
        self.table = table
        self._rows = self._pass()
        self._prompt_lengths: CountedApart | None = None

    def fill(self) -> None:
        """Read as many rows as there is room for."""
        while room := self._dispatcher.room:
            rows = list(islice(self._rows, room))
            self.num_unread -= len(rows)
            for row in self._reshaped([row for row in rows if not self._is_adopted(row)]):
                assert isinstance(row.payload, Pending)
                self._pending[row.row_id] = row.payload
                self._dispatcher.add(row)
            if len(rows) == room:
                continue
            if not self._work.index.reopen(self._lane):
                self._dispatcher.close()
                return
            self._rows = self._pass()

    def heed_lengths(self, lengths: bytes) -> None:
        """Forwards were seen to be as long as prompts. lengths: a pickled `PromptLengths`."""
        if not self._prompt_lengths:
            self._prompt_lengths = CountedApart(lengths)

    def regroup(self) -> None:
        """Group waiting rows by the lengths of their prompts, as soon as these can be counted."""
        if self._prompt_lengths and self._prompt_lengths.becomes_ready():
            log.info("batching rows with equal prompt lengths: denoiser calls depend on the prompt's length")
            self._dispatcher.regroup(self._reshaped)

    def close(self) -> None:
        if self._prompt_lengths:
            self._prompt_lengths.close()

    def _pass(self) -> Iterator[Row]:
        """Read the rows that are to be rendered, from the beginning of the table."""
        run, index, lane = self._work.run, self._work.index, self._lane
        self.num_unread = index.num_pending(lane)
        return pending_rows(self.table, run.rows, index, run.job.order, lane)

    def _is_adopted(self, row: Row) -> bool:
        assert isinstance(row.payload, Pending)
        return self._adopts(row.row_id, row.payload)

    def _reshaped(self, rows: list[Row]) -> list[Row]:
        """Separate rows by the lengths of their prompts too, if forwards are as long as the prompts."""
        return by_prompt_lengths(rows, self._prompt_lengths) if self._prompt_lengths else rows


def pending_rows(
    table: RowSource, rows: ModelRows, index: RowIndex, order: str = AS_TABLE, lane: LaneKey | None = None
) -> Iterator[Row]:
    """Yield every row that is still to be rendered. Raises TableError if the table has changed.

    rows: as the first pass left them, which knows what they have in common. Each row's own row_id must be the
    one that the index has for its position. lane: the only one whose rows are wanted.
    """
    # Counted here and now: rows that are added before the first is read are not in this table.
    return _pending_rows(table, rows, index, order, lane, num_pending=index.num_pending(lane))


def _pending_rows(
    table: RowSource, rows: ModelRows, index: RowIndex, order: str, lane: LaneKey | None, *, num_pending: int
) -> Iterator[Row]:
    num_yielded = 0
    for first, batch in table.batches(start=index.first_pending(lane)):
        row_ids = dict(index.pending_in(first, batch.num_rows, lane))
        if not row_ids:
            continue
        carried = rows.carried.of(batch)
        for row in rows.read(first, batch, only=row_ids):
            if not isinstance(row, IdentifiedRow) or row.row_id != row_ids[row.index]:
                raise _changed(table, f"row {row.index} has changed")
            num_yielded += 1
            request = row.request()
            payload = Pending(request, carried.slice(row.index - first, 1), row.index, kind_of(request))
            rank = 0.0 if order == AS_TABLE else rank_of(order, payload.request, payload.carried)
            yield Row(row_id=row.row_id, shape=row.shape, payload=payload, rank=rank)
    if num_yielded < num_pending:
        raise _changed(table, "rows are gone")


def by_prompt_lengths(
    rows: list[Row], lengths: Callable[[Sequence[Mapping[str, Any]]], list[tuple[int, ...]] | None]
) -> list[Row]:
    """Return the rows with the lengths of their prompts in their shapes, where they are counted.

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
