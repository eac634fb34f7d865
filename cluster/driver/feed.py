"""From the table to the dispatcher's window, while it has room: which rows wait, and in which order.

First, what a run is, and what of it is left for a driver, as plain values. Imports neither Ray nor torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Literal, Protocol

import pyarrow as pa

from framefleet.cluster.dispatch.dispatcher import Dispatcher
from framefleet.cluster.dispatch.faults import FaultPolicy
from framefleet.cluster.dispatch.lease import Row
from framefleet.cluster.driver.earlier_runs import Adoption
from framefleet.cluster.driver.lock import DriverLock
from framefleet.cluster.driver.stop import AGAIN, BudgetLimit, JobBudget, Overrun, Spent
from framefleet.cluster.fleet.settings import FleetSettings
from framefleet.cluster.worker.messages import Rendering, WorkerSetup
from framefleet.pipeline.errors import TableError
from framefleet.pipeline.render.audit.schedule import ComputeTime
from framefleet.pipeline.render.audit.verdict import kind_of
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.identity import AS_TABLE, LaneKey, lane_of, rank_of
from framefleet.pipeline.rows.sweeps.sweep import RowSource
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow, ModelRows

log = logging.getLogger(__name__)


class RunSettings(Protocol):
    """What a driver reads in the job file."""

    @property
    def fleet(self) -> FleetSettings: ...
    @property
    def retries(self) -> FaultPolicy: ...
    @property
    def budget(self) -> JobBudget: ...
    @property
    def order(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun(Rendering):
    """What a run is: a job whose parts were opened, and fit each other. Each value stands here alone."""

    job: RunSettings
    table: RowSource
    rows: ModelRows  # reads the table's rows


@dataclass(frozen=True, slots=True, kw_only=True)
class LanePlan:
    """What a lane's workers need, and what its rows are expected to take."""

    setup: WorkerSetup
    largest: Request | None = None  # the row that takes most memory
    row_work: float = 1.0  # of a row, in a unit that lanes share


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Rows that were added to the table, and are in the index now."""

    table: RowSource  # with them
    lanes: Mapping[LaneKey, LanePlan]  # of all rows by now
    num_new: int  # rows that are to be rendered
    num_done: int  # rows that had a record


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is left of a run, for the driver that holds its output."""

    run: JobRun
    run_id: str  # names the parts of this run; never used before
    index: RowIndex  # every valid row; those that have a record are marked done
    lock: DriverLock
    lanes: Mapping[LaneKey, LanePlan]
    adoption: Adoption = field(default_factory=Adoption)  # clips that earlier runs left
    spent: Spent = field(default_factory=Spent)  # by earlier runs
    spent_elsewhere: Spent | None = None  # of the same budget, on another output; None: there is none
    deadline: datetime | None = None  # when the run has to stop
    model_time: ComputeTime = field(default_factory=ComputeTime)  # of earlier runs, if it limits audits
    # GPU or processor that all workers must have; "": that of the first worker; None: any.
    device_name: str | None = None
    # Takes rows that were added to the table since, into the index; None if there are none. Its parameter is
    # how many rows workers need now.
    more: Callable[[int], Added | None] = lambda num_rows: None
    is_extended: bool = False  # whether rows are added by what the records say, and not by people

    @property
    def setups(self) -> dict[LaneKey, WorkerSetup]:
        return {key: lane.setup for key, lane in self.lanes.items()}

    def cost(self, spent: Spent) -> float | None:
        """Return the money that all runs have spent; None without a price. spent: by this run."""
        job = self.run.job
        # With `per: run`, what this run spent on this output before is in `spent` already.
        elsewhere = self.spent_elsewhere if job.budget.per == "job" else None
        every = self.spent + (elsewhere or Spent()) + spent
        return job.budget.cost(every, gpus_per_worker=job.fleet.paid_gpus)

    def over_budget(self, spent: Spent, *, now: datetime) -> BudgetLimit | Literal["stop_at"] | None:
        """Return the limit of the budget that is reached, or None. spent: by this run."""
        job = self.run.job
        if self.deadline is not None and now >= self.deadline:
            return "stop_at"
        return job.budget.reached(self._counted(spent), gpus_per_worker=job.fleet.paid_gpus)

    def overrun(
        self, limit: BudgetLimit | Literal["stop_at"], spent: Spent, *, num_done: int, num_left: int
    ) -> Overrun:
        """Return what is said of a limit that is reached. spent: by this run. num_done: rows of all runs."""
        job = self.run.job
        if limit == "stop_at":
            return Overrun(
                message=f"budget.stop_at is reached: it is {job.budget.stop_at}", to_continue=AGAIN
            )
        needed = None
        if num_done and self.spent_elsewhere is None and not self.is_extended:
            needed = (self.spent + spent).scaled((num_done + num_left) / num_done)
        counted = self._counted(spent)
        return job.budget.overrun(limit, counted, gpus_per_worker=job.fleet.paid_gpus, needed=needed)

    def num_rows_left(self, num_done: int) -> int | None:
        """Return how many rows the budget allows, at the rate of `num_done` rows of earlier runs."""
        job, counted = self.run.job, self._counted(Spent())
        if not num_done or self.spent_elsewhere is not None:
            return None
        per_row = self.spent.scaled(1 / num_done)
        return job.budget.num_rows_left(counted, per_row, gpus_per_worker=job.fleet.paid_gpus)

    def _counted(self, spent: Spent) -> Spent:
        before = self.spent if self.run.job.budget.per == "job" else Spent()
        return before + (self.spent_elsewhere or Spent()) + spent


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
    """Reads the table, and once more for rows that are to be rendered again."""

    def __init__(
        self,
        work: Work,
        dispatcher: Dispatcher,
        pending: dict[str, Pending],  # gets the rows that wait or are leased
        adopts: Callable[[str, Pending], bool],  # takes a row that needs no rendering, and says so
        *,
        lane: LaneKey,  # the one whose rows are read
        table: RowSource,
    ) -> None:
        self._pending, self._lane = pending, lane
        self._work, self._dispatcher, self._adopts = work, dispatcher, adopts
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
            if not self._work.index.reopen(self._lane):
                self._dispatcher.close()
                return
            self._rows = self._pass()

    def _pass(self) -> Iterator[Row]:
        run, index, lane = self._work.run, self._work.index, self._lane
        # Counted here and now: rows that are added before the first is read are not in this table.
        num_pending = self.num_unread = index.num_pending(lane)
        return pending_rows(
            self.table, run.rows, index, num_pending=num_pending, order=run.job.order, lane=lane
        )


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

    rows: as the first pass left them, which knows what they have in common. Each row's own row_id must be the
    one that the index has for its position. num_pending: how many there must be. lane: the only one wanted.
    """
    num_pending, num_yielded = index.num_pending(lane) if num_pending is None else num_pending, 0
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
