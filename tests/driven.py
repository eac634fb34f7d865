"""Jobs rendered by the real driver and real workers in this process, without Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, cast

from framefleet.cluster.driver.driver import Driver
from framefleet.cluster.driver.lock import DriverLock
from framefleet.cluster.driver.progress import Summary
from framefleet.cluster.driver.recall import finish_taking_back
from framefleet.cluster.fleet.events import Event, Ready, Reported
from framefleet.cluster.fleet.fleet import Fleet
from framefleet.cluster.worker.messages import Assignment, Hello, WorkerReport, WorkerSetup
from framefleet.cluster.worker.worker import Worker
from framefleet.jobs.job.file import job_from_mapping
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.render import setup_of, work_of
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.render.survey import mark_done, survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.parts.part_names import new_run
from framefleet.pipeline.rows.tables.index import RowIndex


class WorkersHere:
    """A fleet whose workers are threads of this process, asked in turn."""

    unused: tuple[str, ...] = ()
    has_too_many = False

    def __init__(self, setup: WorkerSetup, num_workers: int) -> None:
        self._setup = setup
        self._workers: dict[str, Worker] = {}
        self._given: dict[str, list[Assignment]] = {}
        self._dropped: dict[str, list[str]] = {}
        self._starting = [self._start() for _ in range(num_workers)]
        self._is_drained: set[str] = set()

    def _start(self) -> str:
        name = f"worker-{len(self._workers)}"
        self._workers[name] = Worker(self._setup)
        return name

    def grow(self, num_rows: int) -> None:
        """They are there."""

    def publish(self, figures: Mapping[str, float]) -> None:
        """Nobody scrapes them."""

    def resize(self, num_workers: int | None) -> None:
        """Have none in the place of those that end: the driver asks for it as it ends."""
        self.has_too_many = num_workers == 0

    def rendered(self, worker: str) -> None:
        """Nobody counts their faults."""

    def cleared(self, worker: str) -> None:
        """Nobody counts their faults."""

    def wait(self, timeout_s: float) -> list[Event]:
        if self._starting:
            started, self._starting = self._starting, []
            self._given |= {name: [] for name in started}
            return [Ready(name, _started(self._workers[name])) for name in started]
        return [Reported(name, self._report(name)) for name in list(self._given)]

    def exchange(self, worker: str, assignments: Sequence[Assignment], dropped: Sequence[str] = ()) -> None:
        self._given[worker], self._dropped[worker] = list(assignments), list(dropped)

    def drain(self, worker: str) -> None:
        self._is_drained.add(worker)

    def retire(self, worker: str) -> None:
        del self._given[worker]
        if not self.has_too_many:
            self._starting.append(self._start())

    def close(self) -> None:
        for name in self._given:
            self._workers[name].exchange([], drain=True)

    def _report(self, name: str) -> WorkerReport:
        given, self._given[name] = self._given[name], []
        dropped = self._dropped.pop(name, [])
        return self._workers[name].exchange(given, dropped, drain=name in self._is_drained)


def _started(worker: Worker) -> Hello:
    while not isinstance(hello := worker.start(), Hello):
        """It is loading."""
    return hello


def render_driven(values: Mapping[str, Any], *, num_workers: int = 1) -> Summary:
    """Do what `render` does with a job."""
    with closing(resolve_job(job_from_mapping(values), Callback())) as resolved, closing(RowIndex()) as index:
        survey_rows(resolved, index, Callback())
        with DriverLock(resolved.store) as lock:
            claim(resolved)
            finish_taking_back(resolved.store, index, lock)
            mark_done(resolved, index, Callback())
            work = work_of(resolved, index, lock, run=new_run(lock.epoch))
            with closing(WorkersHere(setup_of(resolved), num_workers)) as workers:
                return Driver(work, on_progress=lambda _: None).run(cast(Fleet, workers))
