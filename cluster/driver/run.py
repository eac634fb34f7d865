"""What a run is: a job's settings and opened parts, and the rows that are left, as plain values.

`jobs` makes a `Run` from a job file, and a driver renders its rows. Imports neither Ray nor torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from framefleet.cluster.dispatch.faults import FaultPolicy
from framefleet.cluster.driver.earlier_runs import Adoption
from framefleet.cluster.driver.lock import DriverLock
from framefleet.cluster.driver.stop import AGAIN, BudgetLimit, JobBudget, Overrun, Spent
from framefleet.cluster.fleet.settings import FleetSettings
from framefleet.cluster.worker.messages import Rendering, WorkerSetup
from framefleet.pipeline.render.audit.schedule import ComputeTime
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.identity import LaneKey
from framefleet.pipeline.rows.sweeps.sweep import RowSource
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.table_rows import ModelRows


@dataclass(frozen=True, slots=True, kw_only=True)
class LanePlan:
    """What a lane's workers need, and what its rows are expected to take."""

    setup: WorkerSetup
    largest: Request | None = None  # the row that takes most memory
    row_work: float = 1.0  # of a row, in a unit that lanes share


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Rows that were added to the table, and are in the index now."""

    table: RowSource  # includes them
    lanes: Mapping[LaneKey, LanePlan]  # of all rows so far
    num_new: int  # rows to render
    num_done: int  # rows that had a record


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Rendering):
    """A job and what is left of it, for the driver that holds its output."""

    run_id: str  # names the parts of this run; never used before
    fleet: FleetSettings
    retries: FaultPolicy
    budget: JobBudget
    order: str  # in which rows are rendered, as in the job
    table: RowSource
    rows: ModelRows  # reads the table's rows
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
    # Puts rows that were added to the table since into the index; None if there are none. Its parameters are
    # how many rows workers need now, and what it calls often meanwhile, whose errors end it.
    more: Callable[[int, Callable[[], None]], Added | None] = lambda num_rows, heed: None
    is_extended: bool = False  # whether rows are added depending on the records, not by people

    @property
    def setups(self) -> dict[LaneKey, WorkerSetup]:
        return {key: lane.setup for key, lane in self.lanes.items()}

    def cost(self, spent: Spent) -> float | None:
        """Return the money that all runs have spent; None without a price. spent: by this run."""
        # With `per: run`, what this run spent on this output before is in `spent` already.
        elsewhere = self.spent_elsewhere if self.budget.per == "job" else None
        every = self.spent + (elsewhere or Spent()) + spent
        return self.budget.cost(every, self.fleet.paid_gpus)

    def over_budget(self, spent: Spent, *, now: datetime) -> BudgetLimit | Literal["stop_at"] | None:
        """Return the limit of the budget that is reached, or None. spent: by this run."""
        if self.deadline is not None and now >= self.deadline:
            return "stop_at"
        return self.budget.reached(self._counted(spent), self.fleet.paid_gpus)

    def overrun(
        self, limit: BudgetLimit | Literal["stop_at"], spent: Spent, *, num_done: int, num_left: int
    ) -> Overrun:
        """Return messages about a limit that is reached. spent: by this run. num_done: rows of all runs."""
        if limit == "stop_at":
            return Overrun(
                message=f"budget.stop_at is reached: it is {self.budget.stop_at}", to_continue=AGAIN
            )
        needed = None
        if num_done and self.spent_elsewhere is None and not self.is_extended:
            needed = (self.spent + spent).scaled((num_done + num_left) / num_done)
        return self.budget.overrun(limit, self._counted(spent), self.fleet.paid_gpus, needed)

    def num_rows_left(self, num_done: int) -> int | None:
        """Return how many rows the budget allows, at the rate of `num_done` rows of earlier runs."""
        if not num_done or self.spent_elsewhere is not None:
            return None
        per_row = self.spent.scaled(1 / num_done)
        return self.budget.num_rows_left(self._counted(Spent()), per_row, self.fleet.paid_gpus)

    def _counted(self, spent: Spent) -> Spent:
        before = self.spent if self.budget.per == "job" else Spent()
        return before + (self.spent_elsewhere or Spent()) + spent
