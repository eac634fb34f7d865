"""What a driver is given to do, as plain values. Imports neither Ray nor torch."""

from __future__ import annotations

from dataclasses import dataclass

from framefleet.cluster.lock import DriverLock
from framefleet.cluster.messages import WorkerSetup
from framefleet.cluster.settings import FaultPolicy
from framefleet.pipeline.rows.identity import Identity
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.rows import RowPlan
from framefleet.pipeline.rows.tables.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A job, resolved and checked: all that the driver needs.

    index: every valid row of the table, with those that have a record marked done. identity: gives
    their row_ids. run: names the parts of this run; never used before.
    """

    setup: WorkerSetup
    faults: FaultPolicy
    table: Table
    plan: RowPlan
    index: RowIndex
    identity: Identity
    run: str
    lock: DriverLock
