"""What a driver is given to do, as plain values. Imports neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from framefleet.cluster.dispatch.fault_policy import FaultPolicy
from framefleet.cluster.driver.adoption import Adoption
from framefleet.cluster.driver.budget import JobBudget, Spent
from framefleet.cluster.driver.lock import DriverLock
from framefleet.cluster.fleet.settings import ElasticWorkers
from framefleet.cluster.worker.messages import WorkerSetup
from framefleet.pipeline.render.audit.audit_budget import ComputeTime
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.lane_key import LaneKey
from framefleet.pipeline.rows.sweeps.sweep import RowSource
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.table_rows import ModelRows


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Rows that were added to the table, which the index has by now.

    table: with them. num_new: those that are to be rendered. num_done: those that had a record. setups: of
    the workers of all lanes by now.
    """

    table: RowSource
    setups: Mapping[LaneKey, WorkerSetup]
    num_new: int
    num_done: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A job, resolved and checked: all that the driver needs.

    setups: of the workers of each lane. num_encoders: of workers that only encode, whose setup is that of
    ENCODER_POOL, the last. order: of rows, as
    the job says it. rows: reads the table's rows. index: every valid one, with those
    that have a record marked done. run: names the parts of this run; never used before. adoption: clips
    that earlier runs left. spent: by earlier runs; model_time: of these, where it limits audits.
    gpus_per_worker: that money is counted by. elastic:
    None where the number of workers does not follow the rows left. largest: the row that takes most memory,
    and row_work: what a row is expected to take, in a unit that lanes share; both of each lane.
    device_name: of the GPU, or of the processor, that all workers must have; "": the first's; None: any.
    more: takes rows that were added to the table since, into the index; None where there are none.
    """

    setups: Mapping[LaneKey, WorkerSetup]
    faults: FaultPolicy
    order: str
    table: RowSource
    rows: ModelRows
    index: RowIndex
    run: str
    lock: DriverLock
    adoption: Adoption = field(default_factory=Adoption)
    budget: JobBudget = field(default_factory=JobBudget)
    spent: Spent = field(default_factory=Spent)
    model_time: ComputeTime = field(default_factory=ComputeTime)
    gpus_per_worker: float = 1.0
    num_encoders: int = 0
    elastic: ElasticWorkers | None = None
    largest: Mapping[LaneKey, Request] = field(default_factory=dict)
    row_work: Mapping[LaneKey, float] = field(default_factory=dict)
    device_name: str | None = None
    more: Callable[[], Added | None] = lambda: None

    @property
    def setup(self) -> WorkerSetup:
        """That of the first lane: store, batching, audits and steps are those of all."""
        return next(iter(self.setups.values()))

    def cost(self, spent: Spent) -> float | None:
        """Return the money that all runs have spent; None without a price. spent: by this run."""
        return self.budget.cost(self.spent + spent, gpus_per_worker=self.gpus_per_worker)

    def over_budget(self, spent: Spent) -> str | None:
        """Return what is said where the budget is spent; None while some is left. spent: by this run."""
        return self.budget.told(self.spent + spent, gpus_per_worker=self.gpus_per_worker)
