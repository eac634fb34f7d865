"""How many workers a job is to have: the seconds of work left, over those that it should take."""

from __future__ import annotations

import math

from framefleet.cluster.driver.progress import Progress
from framefleet.cluster.fleet.settings import ElasticWorkers

MIN_ROWS = 8  # before a mean is believed: the first rows of a worker also compile and probe
_KEPT = 1 - 1 / 200  # of the weight of earlier rows, with each row: what rows took long ago is forgotten


class Scale:
    """Follows how long rows take."""

    def __init__(self, workers: ElasticWorkers) -> None:
        self._workers = workers
        self._num_done = 0
        self._elapsed_s = 0.0
        self._rows = self._busy_s = 0.0  # rows that ended and the seconds of workers that had rows, weighted

    def wanted(self, progress: Progress) -> int:
        """Return how many workers the rows left need."""
        num_new = max(0, progress.done - self._num_done)
        num_busy = sum(worker.state == "rendering" for worker in progress.workers)
        kept = _KEPT**num_new
        self._rows = self._rows * kept + num_new
        self._busy_s = self._busy_s * kept + num_busy * (progress.elapsed_s - self._elapsed_s)
        self._num_done, self._elapsed_s = progress.done, progress.elapsed_s
        if progress.done < MIN_ROWS:
            return self._workers.min
        left_s = (progress.total - progress.done - progress.failed) * self._busy_s / self._rows
        return max(self._workers.min, min(self._workers.max, math.ceil(left_s / self._workers.target_s)))
