"""What a driver is given to do, as plain values. Imports neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from framefleet.cluster.dispatch.fault_policy import FaultPolicy
from framefleet.cluster.driver.adoption import Adoption
from framefleet.cluster.driver.budget import JobBudget, Spent
from framefleet.cluster.driver.lock import DriverLock
from framefleet.cluster.fleet.settings import FleetSettings
from framefleet.cluster.worker.messages import WorkerSetup
from framefleet.pipeline.render.audit.audit_budget import ComputeTime
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.lane_key import LaneKey
from framefleet.pipeline.rows.sweeps.sweep import RowSource
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.table_rows import ModelRows


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Rows that were added to the table, and are in the index now.

    table: with them. num_new: those that are to be rendered. num_done: those that had a record. setups,
    largest, row_work: of all lanes by now, as of `Work`.
    """

    table: RowSource
    setups: Mapping[LaneKey, WorkerSetup]
    num_new: int
    num_done: int
    largest: Mapping[LaneKey, Request]
    row_work: Mapping[LaneKey, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A job, resolved and checked: all that the driver needs."""

    setups: Mapping[LaneKey, WorkerSetup]  # of the workers of each lane; the last may be ENCODER_POOL's
    faults: FaultPolicy
    order: str  # of rows, as the job says it
    table: RowSource
    rows: ModelRows  # reads the table's rows
    index: RowIndex  # every valid row; those that have a record are marked done
    run: str  # names the parts of this run; never used before
    lock: DriverLock
    adoption: Adoption = field(default_factory=Adoption)  # clips that earlier runs left
    budget: JobBudget = field(default_factory=JobBudget)
    spent: Spent = field(default_factory=Spent)  # by earlier runs
    model_time: ComputeTime = field(default_factory=ComputeTime)  # of earlier runs, if it limits audits
    fleet: FleetSettings = field(default_factory=FleetSettings)
    # By lane: the row that takes most memory.
    largest: Mapping[LaneKey, Request] = field(default_factory=dict)
    # By lane: what a row is expected to take, in a unit that lanes share.
    row_work: Mapping[LaneKey, float] = field(default_factory=dict)
    # GPU or processor that all workers must have; "": that of the first worker; None: any.
    device_name: str | None = None
    # Takes rows that were added to the table since, into the index; None if there are none.
    more: Callable[[], Added | None] = lambda: None

    @property
    def setup(self) -> WorkerSetup:
        """The setup of the first lane: store, batching, audits and steps are the same for all."""
        return next(iter(self.setups.values()))

    def cost(self, spent: Spent) -> float | None:
        """Return the money that all runs have spent; None without a price. spent: by this run."""
        return self.budget.cost(self.spent + spent, gpus_per_worker=self.fleet.paid_gpus)

    def over_budget(self, spent: Spent) -> str | None:
        """Return the message if the budget is spent, else None. spent: by this run."""
        return self.budget.told(self.spent + spent, gpus_per_worker=self.fleet.paid_gpus)
