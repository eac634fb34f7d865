"""Jobs rendered by the real driver and real workers in this process, without Ray."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any
from unittest import mock

from framefleet import Progress, Renderer, Summary
from framefleet.cluster.fleet.events import Event, Ready, Reported
from framefleet.cluster.worker.messages import Assignment, Hello, WorkerReport, WorkerSetup
from framefleet.cluster.worker.worker import Worker
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.render.row_parts import Additions, write_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.rows.identity import LaneKey
from tests.driving import StandIns, begun, drive, left_of


class WorkersHere(StandIns):
    """A fleet whose workers are threads of this process, asked in turn.

    One loads its model or renders at a time: libraries change torch's classes while they load, which others
    would take for their rows' doing. Elsewhere each worker has a process.
    """

    next_lane: Callable[[Mapping[LaneKey, int]], LaneKey]  # which the driver sets, and this
    lanes_left: Callable[[], Sequence[LaneKey]]

    def __init__(self, setups: Mapping[LaneKey, WorkerSetup], num_workers: int) -> None:
        self._setups, self._num_workers = dict(setups), num_workers
        self._workers: dict[str, Worker] = {}
        self._given: dict[str, list[Assignment]] = {}
        self._dropped: dict[str, list[str]] = {}
        self._starting: list[str] = []
        self._is_drained: set[str] = set()
        self.lanes: dict[str, LaneKey] = {}  # of all workers that were started, by their names
        self._patches, turn = ExitStack(), threading.RLock()
        for owner, name in ((Worker, "_load"), (Renderer, "__init__"), (Renderer, "step")):
            self._patches.enter_context(mock.patch.object(owner, name, _in_turn(getattr(owner, name), turn)))

    def open(self, setups: Mapping[LaneKey, WorkerSetup]) -> None:
        self._setups |= setups

    def _start(self, lane: LaneKey | None = None) -> None:
        name = f"worker-{len(self._workers)}"
        self.lanes[name] = self.next_lane(self.num_by_lane()) if lane is None else lane
        self._workers[name] = Worker(self._setups[self.lanes[name]])
        self._starting.append(name)

    def num_by_lane(self) -> Counter[LaneKey]:
        return Counter(self.lanes[name] for name in [*self._given, *self._starting])

    num_serving = num_by_lane

    def unfit(self, worker: str) -> set[LaneKey]:
        return set()

    def grow(self, num_rows: int) -> None:
        while len(self._workers) < self._num_workers:
            self._start()

    def wait(self, timeout_s: float) -> list[Event]:
        if self._starting:
            started, self._starting = self._starting, []
            self._given |= {name: [] for name in started}
            return [
                Ready(name, _started(self._workers[name]), lane=self.lanes[name], load_s=0.001)
                for name in started
            ]
        return [Reported(name, self._report(name)) for name in list(self._given)]

    def exchange(self, worker: str, assignments: Sequence[Assignment], dropped: Sequence[str] = ()) -> None:
        self._given[worker], self._dropped[worker] = list(assignments), list(dropped)

    def drain(self, worker: str) -> None:
        self._is_drained.add(worker)

    def retire(self, worker: str, lane: LaneKey | None = None) -> None:
        del self._given[worker]
        if not self.has_too_many:
            self._start(lane)

    def close(self) -> None:
        for name in self._given:
            self._workers[name].exchange([], drain=True)
        self._patches.close()

    def _report(self, name: str) -> WorkerReport:
        given, self._given[name] = self._given[name], []
        dropped = self._dropped.pop(name, [])
        return self._workers[name].exchange(given, dropped, drain=name in self._is_drained)


def _in_turn(function: Callable[..., Any], turn: threading.RLock) -> Callable[..., Any]:
    @functools.wraps(function)
    def waiting(*given: Any, **named: Any) -> Any:
        with turn:
            return function(*given, **named)

    return waiting


def _started(worker: Worker) -> Hello:
    while not isinstance(hello := worker.start(), Hello):
        """It is loading."""
    return hello


def render_driven(
    values: Mapping[str, Any],
    *,
    num_workers: int = 1,
    meanwhile: Callable[[], object] | None = None,
    lanes: list[LaneKey] | None = None,
) -> Summary:
    """Do what `render` does with a job. meanwhile: called once, while it runs; may add rows to the table.

    lanes: gets that of each worker that was started.
    """
    resolved = resolve_job(load_job(values), Callback())
    with closing(resolved), begun(resolved) as (survey, index, lock):
        claim(resolved)
        write_rows(resolved, index, lock)
        run = replace(left_of(resolved, index, lock), more=Additions(resolved, survey, index, lock).take)
        todo = [meanwhile] if meanwhile else []

        def seen(_: Progress) -> None:
            if todo:
                todo.pop()()
                lock.num_tables += 1  # as its next beat sees

        with closing(WorkersHere(run.setups, num_workers)) as workers:
            summary = drive(run, workers, seen)
        if lanes is not None:
            lanes += workers.lanes.values()
        return summary
