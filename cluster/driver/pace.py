"""From how fast rows end to when the rest will be done, and to how many workers that takes.

The first rows wait for loading, probing and compiling, and rows come in batches: what they promise is off by
a factor of ten. So no time is said until every worker has had a few batches and these took alike.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from framefleet.cluster.driver.progress import Progress
from framefleet.cluster.fleet.settings import ElasticWorkers

Point = tuple[float, int]  # seconds, and how many rows were finished by then

MIN_BATCHES = 4  # of all workers together: the first one's phase is then a quarter of the whole, or less
MIN_BATCHES_EACH = 2
# Between the quarters of what was finished. Even batches that end at once give 2: one quarter holds one
# batch, the next two.
MAX_UNLIKE = 3.0
MAX_SILENCE = 3.0  # times the longest wait for a row so far: then something is wrong, and nothing is promised
CHANGE = 0.2  # of the workers: fewer do not make another fleet of one of hundreds
_MAX_POINTS = 256
MIN_ROWS = 8  # before a mean is believed: the first rows of a worker also compile and probe
_KEPT = 1 - 1 / 200  # of the weight of earlier rows, with each row: what rows took long ago is forgotten


def eta_s(points: Sequence[Point], left: int, *, now: float, workers: int, batch: float) -> float | None:
    """Return in how many seconds this many rows will be done; None where that would be a guess.

    points: in order, since the workers that render have been these. batch: rows that are finished together.
    """
    rows = points[-1][1] - points[0][1] if points else 0
    if not workers or rows < max(MIN_BATCHES, MIN_BATCHES_EACH * workers) * max(batch, 1.0):
        return None
    quarters = _quarters(points)
    longest = max(later[0] - earlier[0] for earlier, later in pairwise(points))
    is_even = max(quarters) <= MAX_UNLIKE * min(quarters)
    if not is_even or now - points[-1][0] > MAX_SILENCE * longest:
        return None
    return left * (points[-1][0] - points[0][0]) / rows


def _quarters(points: Sequence[Point]) -> list[float]:
    """Return how many seconds each quarter of the rows took."""
    (_, first), (_, last) = points[0], points[-1]
    counts = [count for _, count in points]
    edges = [points[bisect_left(counts, first + (last - first) * part / 4)][0] for part in range(5)]
    return [later - earlier for earlier, later in pairwise(edges)]


class TimeLeft:
    """Remembers when rows were finished, as long as the number of workers stays the same."""

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._workers = 0
        self._stride = 1  # rows between two points

    def finished(self, num_rows: int, *, now: float, workers: int) -> None:
        """Note how many rows of this run are finished by now, and how many workers there are."""
        if abs(workers - self._workers) > CHANGE * self._workers:
            self._points, self._workers, self._stride = [], workers, 1
        points = self._points
        if points and points[-1][1] == num_rows:
            return
        if len(points) > 1 and points[-1][1] - points[-2][1] < self._stride:
            points.pop()
        points.append((now, num_rows))
        if len(points) > _MAX_POINTS:
            del points[1:-1:2]
            self._stride *= 2

    def eta_s(self, left: int, *, now: float, batch: float) -> float | None:
        """Return `eta_s` of what was seen."""
        return eta_s(self._points, left, now=now, workers=self._workers, batch=batch)


class Scale:
    """How many workers a job should have: the seconds of work left, over those that it should take."""

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
