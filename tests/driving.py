"""A job's driver with workers of a test's own in place of a fleet: nothing of Ray runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import cast

from framefleet import Progress, Summary
from framefleet.cluster.driver.driver import Driver
from framefleet.cluster.driver.earlier_runs import finish_taking_back
from framefleet.cluster.driver.epoch_lock import BEAT_S, EXPIRY_S
from framefleet.cluster.driver.lock import DriverLock
from framefleet.cluster.driver.run import Run
from framefleet.cluster.driver.stop import Stop
from framefleet.cluster.fleet.fleet import Fleet
from framefleet.cluster.worker.messages import Hello, WorkerSetup
from framefleet.jobs.render.render import run_of
from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.jobs.render.survey import Survey, mark_done, survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.parts.seals import new_run
from framefleet.pipeline.rows.identity import LaneKey
from framefleet.pipeline.rows.tables.index import RowIndex


class StandIns:
    """What a driver asks of a fleet besides: these workers are there, serve any lane and have no faults."""

    unused: tuple[str, ...] = ()
    has_too_many = False

    def grow(self, num_rows: int) -> None: ...

    def num_serving(self) -> Counter[LaneKey]:
        """None is on its way."""
        return Counter()

    def open(self, setups: Mapping[LaneKey, WorkerSetup]) -> None: ...

    def publish(self, figures: Mapping[str, float]) -> None: ...

    def rendered(self, worker: str, row_id: str) -> None: ...

    def acquitted(self, worker: str, row_id: str) -> None: ...

    def cleared(self, worker: str) -> None: ...

    def resize(self, num_workers: int | None) -> None:
        """Have none in the place of those that end: the driver asks for it as it ends, and while it waits."""
        self.has_too_many = num_workers == 0


def hello_of(resolved: ResolvedJob) -> Hello:
    digest = resolved.first.identity.model_digest
    return Hello(version="", fingerprint="", model_digest=digest, environment={}, node="", pid=0)


@contextmanager
def begun(
    resolved: ResolvedJob, *, beat_s: float = BEAT_S, expiry_s: float = EXPIRY_S
) -> Iterator[tuple[Survey, RowIndex, DriverLock]]:
    """Yield what `render` has before it starts a fleet: all rows, those that are left, and the lock."""
    with closing(RowIndex()) as index:
        survey = survey_rows(resolved, index, Callback())
        with DriverLock(resolved.store, beat_s=beat_s, expiry_s=expiry_s) as lock:
            finish_taking_back(resolved.store, index, lock)
            mark_done(resolved, index, Callback())
            yield survey, index, lock


def left_of(resolved: ResolvedJob, index: RowIndex, lock: DriverLock) -> Run:
    return run_of(resolved, index, lock, run_id=new_run(lock.epoch))


def drive(
    run: Run,
    workers: object,
    on_progress: Callable[[Progress], None] = lambda _: None,
    stop: Stop | None = None,
) -> Summary:
    return Driver(run, on_progress=on_progress, stop=stop).run(cast(Fleet, workers))
