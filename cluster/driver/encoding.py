"""Rows whose text some workers encode and others denoise: one dispatcher after the other.

A row goes to the second once its embeddings are in the store, and back where they are not found there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from framefleet.cluster.dispatch.dispatcher import Dispatcher, GivenUp, Row
from framefleet.cluster.dispatch.fault_policy import FaultPolicy
from framefleet.cluster.worker.messages import Failed, WorkerSetup
from framefleet.pipeline.rows.lane_key import LaneKey

# Among the lanes of a job, which has one of rows then: names of models have no space.
ENCODER_POOL = LaneKey("text encoders")


def encoding_setup(setup: WorkerSetup) -> WorkerSetup:
    """Return the setup of a worker that encodes for those with `setup`: one row at a time."""
    batching = replace(setup.batching, max_rows=1)
    return replace(setup, stage="encode", batching=batching, checkpoint_every_s=0.0, steps={})


class EncodeFirst:
    """Two dispatchers, which a feed fills as if they were one.

    first: of the workers that encode. then: of those that denoise. Together they hold no more rows than one.
    """

    def __init__(self, first: Dispatcher, then: Dispatcher, faults: FaultPolicy) -> None:
        self._first, self._then, self._faults = first, then, faults
        self._num_returns: Counter[str] = Counter()  # by row_id, of those that came back

    @property
    def room(self) -> int:
        """How many more rows may wait, for either."""
        held = self._first.counts
        return max(0, min(self._first.room, self._then.room - held.waiting - held.leased))

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
