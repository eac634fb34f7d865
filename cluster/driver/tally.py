"""From events of a run to its progress: counts, rate, time left. Takes `now` from its caller.

The first rows wait for loading, probing and compiling, and rows come in batches: an estimate from these is
off by a factor of ten. So no time is estimated until every worker has had a few batches that took about as
long.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import pairwise

from framefleet.cluster.driver.progress import (
    WORKER_STATES,
    LackingColumn,
    Progress,
    RunFigures,
    Summary,
    WorkerState,
)
from framefleet.cluster.fleet.settings import ElasticWorkers
from framefleet.pipeline import metrics
from framefleet.pipeline.render.audit.schedule import ComputeTime
from framefleet.pipeline.render.audit.verdict import Audited

Point = tuple[float, int]  # seconds, and how many rows were finished by then

MIN_BATCHES = 4  # of all workers together: the first one's phase is then a quarter of the whole, or less
MIN_BATCHES_EACH = 2
# Between the quarters of the finished rows. Even batches that end at once give 2: one quarter has one batch,
# the next has two.
MAX_UNLIKE = 3.0
MAX_SILENCE = (
    3.0  # times the longest wait for a row so far: beyond it something is wrong, and nothing is said
)
CHANGE = 0.2  # of the workers: fewer do not make another fleet of one of hundreds
_MAX_POINTS = 256
MIN_ROWS = 8  # before a mean is believed: the first rows of a worker also compile and probe
_KEPT = 1 - 1 / 200  # of the weight of earlier rows, with each row: what rows took long ago is forgotten


def eta_s(points: Sequence[Point], left: int, *, now: float, workers: int, batch: float) -> float | None:
    """Return in how many seconds this many rows will be done; None if that would be a guess.

    points: in order, since the workers that render have been these. batch: rows that are finished together.
    """
    rows = points[-1][1] - points[0][1] if points else 0
    if not workers or rows < max(MIN_BATCHES, MIN_BATCHES_EACH * workers) * max(batch, 1.0):
        return None
    (_, first), (_, last) = points[0], points[-1]
    counts = [count for _, count in points]
    edges = [points[bisect_left(counts, first + (last - first) * part / 4)][0] for part in range(5)]
    quarters = [later - earlier for earlier, later in pairwise(edges)]  # seconds for each quarter of the rows
    longest = max(later[0] - earlier[0] for earlier, later in pairwise(points))
    is_even = max(quarters) <= MAX_UNLIKE * min(quarters)
    if not is_even or now - points[-1][0] > MAX_SILENCE * longest:
        return None
    return left * (points[-1][0] - points[0][0]) / rows


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
        return eta_s(self._points, left, now=now, workers=self._workers, batch=batch)


class Scale:
    """How many workers a job should have: the seconds of work left, divided by those that it should take."""

    def __init__(self, workers: ElasticWorkers) -> None:
        self._workers = workers
        self._num_rendered = 0
        self._elapsed_s = 0.0
        self._rows = self._busy_s = 0.0  # rows that ended and the seconds of workers that had rows, weighted

    def wanted(self, progress: Progress) -> int:
        rendered = int(metrics.ROW_OUTCOMES.of(progress.figures, "done"))  # without adopted clips
        num_new = rendered - self._num_rendered
        num_busy = sum(worker.state == "rendering" for worker in progress.workers)
        weight = _KEPT**num_new
        self._rows = self._rows * weight + num_new
        self._busy_s = self._busy_s * weight + num_busy * (progress.elapsed_s - self._elapsed_s)
        self._num_rendered, self._elapsed_s = rendered, progress.elapsed_s
        if rendered < MIN_ROWS:
            return self._workers.min
        left_s = (progress.total - progress.done - progress.failed) * self._busy_s / self._rows
        return max(self._workers.min, min(self._workers.max, math.ceil(left_s / self._workers.target_s)))


MAX_GONE_TOLD = 100  # workers that have left, in `Progress`


class Tally:
    """Counts one run. total: rows that it has to render. before: rows that had a record already.

    sections: the section of each plugin's column.
    """

    def __init__(
        self, total: int, *, now: float, before: int = 0, sections: Mapping[str, str] | None = None
    ) -> None:
        self._total, self._before = total, before
        self._pace = TimeLeft()
        self._started_at = now
        self._first_lease_at: float | None = None
        self._done = self._failed = 0
        self.counts = metrics.Counts()
        self.model_time = ComputeTime()
        self._sections, self._lacking = sections or {}, dict[str, LackingColumn]()
        self._apart: list[str] = []
        self._unrepeatable: list[str] = []
        self._here: dict[str, WorkerState] = {}
        self._figures: dict[str, Mapping[str, float]] = {}  # of these
        self._store_silent_s: dict[str, float] = {}  # likewise
        self._gone: deque[WorkerState] = deque(maxlen=MAX_GONE_TOLD)  # the newest first
        self._num_gone: Counter[str] = Counter()
        self._figures_of_gone: dict[str, float] = {}
        self._last_failure: str | None = None
        self.waiting_for: str | None = None  # what a worker that is not ready is doing
        self.unused: tuple[str, ...] = ()  # workers and machines, each with its reason
        self._paused_since = ""
        self._paused_at = self._paused_s = 0.0  # when the last pause began; how long earlier ones took

    @property
    def is_paused(self) -> bool:
        return bool(self._paused_since)

    @property
    def num_left(self) -> int:
        return self._total - self._done - self._failed

    def pause(self, since: str, *, now: float) -> None:
        """Nothing is rendered from now on, and this time is not counted. since: for people."""
        self._paused_since, self._paused_at = since, now

    def resume(self, *, now: float) -> None:
        self._paused_s += now - self._paused_at
        self._paused_since = ""

    def _worked_until(self, now: float) -> float:
        """Return a clock that stops while the job is paused."""
        return (self._paused_at if self.is_paused else now) - self._paused_s

    def joined(self, worker: str, node: str, model: str = "") -> None:
        self._here[worker] = WorkerState(name=worker, state="idle", node=node, model=model)

    def leased(self, *, now: float) -> None:
        """A worker has been given rows."""
        if self._first_lease_at is None:
            self._first_lease_at = self._worked_until(now)

    def done(self, worker: str, batch_size: float, num_bytes: int = 0) -> None:
        self._done += 1
        self.counts.add(metrics.ROW_OUTCOMES, label="done")
        self.counts.add(metrics.BATCH_SIZES, batch_size)
        self.counts.add(metrics.CLIP_BYTES, num_bytes)
        self._here[worker] = replace(self._here[worker], rows_done=self._here[worker].rows_done + 1)

    def lacking(self, row_id: str, errors: Mapping[str, str]) -> None:
        """Count columns that failed for a row, and are null in its record."""
        for name, message in errors.items():
            before = self._lacking.get(name)
            self._lacking[name] = LackingColumn.and_one(self._sections[name], before, row_id, message)

    def added(self, num_new: int, *, num_done: int) -> None:
        """Rows were added to the table. num_done: those that have a record."""
        self._total += num_new
        self._before += num_done

    def adopted(self, num_bytes: int = 0) -> None:
        self._done += 1
        self.counts.add(metrics.ROW_OUTCOMES, label="adopted")
        self.counts.add(metrics.CLIP_BYTES, num_bytes)

    def counted(self, worker: str, figures: Mapping[str, float], *, store_silent_s: float = 0.0) -> None:
        self.model_time += ComputeTime.of(figures) - ComputeTime.of(self._figures.get(worker, {}))
        self._figures[worker], self._store_silent_s[worker] = figures, store_silent_s

    def withdrawn(self, rows: int, *, num_bytes: int, num_before: int = 0) -> None:
        """Rows that were done are rendered again. num_bytes: of their clips.

        num_before: how many of them were done before this run.
        """
        self._done -= rows - num_before
        self._before -= num_before
        self._total += num_before
        self.counts.add(metrics.CLIP_BYTES, -num_bytes)
        self.counts.add(metrics.ROW_OUTCOMES, rows, "withdrawn")

    def audited(self, audited: Audited) -> None:
        self.counts.add(metrics.AUDITS, label=audited.verdict)
        kinds = {"differs": self._apart, "unrepeatable": self._unrepeatable}.get(audited.verdict, [])
        if audited.kind not in kinds:
            kinds.append(audited.kind)

    def failed(self, message: str) -> None:
        self._failed += 1
        self.counts.add(metrics.ROW_OUTCOMES, label="failed")
        self._last_failure = message

    def left(self, worker: str, how: str) -> None:
        """A worker is gone. how: one of `GONE`."""
        state = self._here.pop(worker, None)
        if state is None:  # it never joined, or has left
            return
        self._gone.appendleft(replace(state, state=how))
        self._num_gone[how] += 1
        self._store_silent_s.pop(worker, None)
        self._figures_of_gone = metrics.added(self._figures_of_gone, self._figures.pop(worker, {}))

    def progress(self, now: float, in_hand: Mapping[str, int] | None = None) -> Progress:
        """Return how far the run is. in_hand: how many rows each worker has, if any."""
        now, in_hand = self._worked_until(now), in_hand or {}
        figures, in_flight = self.figures(), sum(in_hand.values())
        rendered = int(metrics.ROW_OUTCOMES.of(figures, "done"))
        mean_batch = metrics.BATCH_SIZES.total(figures) / rendered if rendered else None
        since = self._first_lease_at
        here = [
            replace(worker, state="rendering", rows_in_hand=num) if (num := in_hand.get(name)) else worker
            for name, worker in self._here.items()
        ]
        self._pace.finished(rendered, now=now, workers=len(here))
        states = {"done": self._before + self._done, "failed": self._failed, "leased": in_flight}
        states["waiting"] = max(0, self.num_left - in_flight)
        figures |= {metrics.JOB_ROWS.key(state): count for state, count in states.items()}
        num_workers = Counter(worker.state for worker in here) + self._num_gone
        figures |= {metrics.WORKERS.key(state): num_workers[state] for state in WORKER_STATES}
        figures[metrics.STORE_SILENT_SECONDS.key()] = max(self._store_silent_s.values(), default=0.0)
        figures[metrics.BLOCKED_PLACES.key()] = len(self.unused)
        return Progress(
            total=self._total,
            before=self._before,
            done=self._done,
            failed=self._failed,
            in_flight=in_flight,
            elapsed_s=now - self._started_at,
            rows_per_s=rendered / (now - since) if rendered and since is not None and now > since else None,
            eta_s=self._pace.eta_s(self.num_left, now=now, batch=mean_batch or 1.0),
            mean_batch=mean_batch,
            workers=(*here, *self._gone),
            last_failure=self._last_failure,
            waiting_for=self.waiting_for,
            unused=self.unused,
            paused_since=self._paused_since,
            figures=figures,
        )

    def figures(self) -> dict[str, float]:
        return metrics.added(self.counts.figures(), self._figures_of_gone, *self._figures.values())

    def summary(self, last: Progress) -> Summary:
        """Return how the run ended. last: its last progress."""
        return Summary(
            **{field.name: getattr(last, field.name) for field in fields(RunFigures)},
            apart=tuple(self._apart),
            unrepeatable=tuple(self._unrepeatable),
            lacking=dict(self._lacking),
        )
