"""How far an export is: told to whoever watches, as its pieces are read."""

from __future__ import annotations

import time

from framefleet.jobs.export.plan import ExportPlan
from framefleet.jobs.show.standing import ExportProgress
from framefleet.jobs.show.watch import Watch


class ExportPace:
    """Counts what is done. done: shards that are there already."""

    def __init__(self, plan: ExportPlan, done: set[int], watch: Watch) -> None:
        self._plan, self._watch, self._begun = plan, watch, time.monotonic()
        self._before = self._done = sum(plan.shards[number].num_rows for number in done)
        self._num_bytes = 0
        self.add(0, 0)

    def add(self, num_rows: int, num_bytes: int) -> None:
        self._done, self._num_bytes = self._done + num_rows, self._num_bytes + num_bytes
        elapsed_s = time.monotonic() - self._begun
        rate = (self._done - self._before) / elapsed_s if elapsed_s else 0.0
        self._watch.show(
            ExportProgress(
                done=self._done,
                total=self._plan.num_rows,
                bytes_per_s=self._num_bytes / elapsed_s if rate else None,
                eta_s=(self._plan.num_rows - self._done) / rate if rate else None,
            )
        )
