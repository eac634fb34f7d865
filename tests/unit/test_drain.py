"""A driver that is told to stop, and workers that are to go: nothing that is done is lost.

All is real (table, index, lock, driver, records and checkpoints in a folder) but the two workers, which
finish a row at each turn.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from framefleet import FleetError, Output, Progress, Store, Summary
from framefleet.cluster.dispatch.faults import LostRows
from framefleet.cluster.driver.lock import PAUSE, STOP, DriverLock
from framefleet.cluster.driver.stop import Stop
from framefleet.cluster.fleet.events import Event, LaneLost, Leaving, Lost, Ready, Reported
from framefleet.cluster.fleet.losses import Cause
from framefleet.cluster.worker.checkpointer import checkpoint_path
from framefleet.cluster.worker.messages import (
    Assignment,
    Failed,
    Hello,
    Remark,
    StoredRow,
    WorkerReport,
)
from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.pipeline.outputs.layout import CHECKPOINTS
from framefleet.pipeline.rows.identity import LaneKey
from framefleet.plugins.engines.settings import VideosApi
from tests.driving import StandIns, begun, drive, hello_of, left_of
from tests.jobs import job_values, prompt_rows, records_of, resolved_from, write_table
from tests.rows import RECORD

NUM_ROWS = 12


@dataclass
class Workers(StandIns):
    """Two of them, in place of a fleet. at: what happens in which turn.

    Drained, a worker keeps its first row half-done and hands all back.
    """

    store: Store
    hello: Hello
    at: dict[int, Callable[[], Event | None]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)  # once
    hopeless: set[str] = field(default_factory=set)  # that fail each time
    keeps: bool = False  # something of each row that fails, told with that
    enders: Collection[int] = ()  # seeds of rows that have their worker end, each time
    with_notice: bool = False  # of its machine; else the worker is sent a signal
    hands: dict[str, list[Assignment]] = field(default_factory=dict)
    draining: set[str] = field(default_factory=set)
    goes_on: list[str] = field(default_factory=list)  # rows that were given with a checkpoint
    retired: list[tuple[str, bool]] = field(default_factory=list)  # and whether another takes its place
    num_workers: int = 2
    asked: dict[int, set[str]] = field(default_factory=dict)  # of the driver, from which turn on
    lock: DriverLock | None = None
    num_started: int = 0
    turn: int = 0
    deaf_until: float = 0  # this turn, once drained
    seen: list[Progress] = field(default_factory=list)

    def exchange(self, worker: str, assignments: Sequence[Assignment], dropped: Sequence[str]) -> None:
        assert worker not in self.draining, "it takes no more"
        self.goes_on += [given.row_id for given in assignments if given.has_checkpoint]
        kept = [one for one in self.hands.get(worker, []) if one.row_id not in dropped]
        self.hands[worker] = [*kept, *assignments]

    def drain(self, worker: str) -> None:
        self.draining.add(worker)

    def end(self, worker: str, cause: Cause) -> Lost:
        self.retire(worker)
        return Lost(worker, cause)

    def replace(self, lost: Lost, loss: LostRows) -> None:
        """Others start once all have ended."""

    def retire(self, worker: str, lane: LaneKey | None = None) -> None:
        assert not self.hands.pop(worker)
        self.retired.append((worker, not self.has_too_many))

    def wait(self, timeout_s: float) -> list[Event]:
        if not self.hands and not self.has_too_many:
            self.num_started += 2
            return [
                Ready(f"worker-{number}", self.hello, at=("machine",))
                for number in range(self.num_started - 2, self.num_started)
            ]
        self.turn += 1
        if self.turn in self.asked and self.lock:
            self.lock.asked = frozenset(self.asked[self.turn])
        event = self.at.pop(self.turn, lambda: None)()
        told: list[Event] = [event] if event else []
        told += [Leaving(worker) for worker in self.hands if self.with_notice and self._is_to_end(worker)]
        return told + [Reported(worker, self._report(worker)) for worker in list(self.hands)]

    def _is_to_end(self, worker: str) -> bool:
        return any(row.request.seed in self.enders for row in self.hands[worker])

    def _report(self, worker: str) -> WorkerReport:
        rows = self.hands[worker]
        if worker in self.draining and self.turn < self.deaf_until:
            return WorkerReport()
        if worker in self.draining:
            self.hands[worker] = []
            kept = [row.row_id for row in rows[:1]]
            for row_id in kept:
                self.store.write(checkpoint_path(row_id), b"half")
            return WorkerReport(saved=tuple(kept), handed_back=tuple(row.row_id for row in rows))
        if not rows or self._is_to_end(worker):
            return WorkerReport(is_leaving=bool(rows) and not self.with_notice)
        row_id = rows.pop(0).row_id
        if row_id in self.failing | self.hopeless:
            self.failing.discard(row_id)
            if self.keeps:
                self.store.write(checkpoint_path(row_id), b"an id")
            return WorkerReport(
                saved=(row_id,) if self.keeps else (),
                failed=(Failed(row_id=row_id, error_type="E", message="", traceback=""),),
                remarks=(Remark(text="tried again alone", level=logging.INFO, row_id=row_id),),
            )
        return WorkerReport(rendered=(StoredRow(record=replace(RECORD, row_id=row_id)),))


@pytest.fixture
def resolved(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ResolvedJob]:
    table = write_table(tmp_path / "t.parquet", prompt_rows(NUM_ROWS, num_inference_steps=2))
    values = job_values(table, tmp_path / "out", retries={"drain_s": getattr(request, "param", 120.0)})
    with resolved_from(values) as resolved:
        yield resolved


Run = Callable[..., tuple[Workers, Summary | None]]


@pytest.fixture
def run(resolved: ResolvedJob) -> Run:
    """Return what renders the job, as often as it is called. Its summary is None where it was interrupted."""

    def run(**more: Any) -> tuple[Workers, Summary | None]:
        with begun(resolved, beat_s=600) as (_, index, lock):
            workers = Workers(resolved.store, hello_of(resolved), lock=lock, **more)
            try:
                with Stop() as stop:
                    return workers, drive(left_of(resolved, index, lock), workers, workers.seen.append, stop)
            except KeyboardInterrupt:
                return workers, None

    return run


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_rows_that_finished_have_records_and_half_done_ones_go_on_in_the_next_run(
    run: Run, tmp_path: Path
) -> None:
    workers, summary = run(at={2: interrupt})
    assert summary is None
    assert len(records_of(tmp_path / "out")) == 4, "two turns of two workers"
    assert sorted(workers.retired) == [("worker-0", False), ("worker-1", False)]
    kept = {path.stem for path in (tmp_path / "out" / CHECKPOINTS).iterdir()}
    assert len(kept) == 2
    workers, summary = run()
    assert set(workers.goes_on) == kept
    assert summary and summary.done == NUM_ROWS - 4
    assert not (tmp_path / "out" / CHECKPOINTS).exists()


def test_half_done_rows_stay_where_no_worker_can_go_on(run: Run, tmp_path: Path) -> None:
    run(at={2: interrupt})
    kept = {path.name for path in (tmp_path / "out" / CHECKPOINTS).iterdir()}
    error = FleetError("no machine is left that can render", "look for the cause there")
    lost = LaneLost(LaneKey(), error, ["worker-0", "worker-1"])
    with pytest.raises(FleetError, match="no machine is left"):
        run(at={1: lambda: lost})
    assert {path.name for path in (tmp_path / "out" / CHECKPOINTS).iterdir()} == kept


@pytest.mark.parametrize(("resolved", "times"), [(0.3, 1), (120.0, 2)], indirect=["resolved"])
def test_a_worker_that_does_not_answer_is_waited_for_only_so_long_or_until_a_second_ctrl_c(
    times: int, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupted() -> None:
        for _ in range(times):
            interrupt()

    workers, _ = run(at={1: interrupted}, deaf_until=math.inf)
    assert len(records_of(tmp_path / "out")) == 2
    assert "rows that were not saved in time" in caplog.text or times == 2
    assert workers.turn == 1 or times == 1


def test_a_worker_whose_machine_is_to_go_hands_its_rows_to_others(run: Run, tmp_path: Path) -> None:
    workers, summary = run(at={1: lambda: Leaving("worker-0")})
    assert workers.retired == [("worker-0", True)]
    assert len(workers.goes_on) == 1
    assert summary and summary.done == NUM_ROWS
    assert len({record["row_id"] for record in records_of(tmp_path / "out")}) == NUM_ROWS


@pytest.mark.parametrize("with_notice", [False, True])
def test_rows_that_have_their_worker_end_each_time_are_given_up(
    with_notice: bool, run: Run, tmp_path: Path
) -> None:
    workers, summary = run(enders={3, 8}, with_notice=with_notice)
    assert summary and (summary.done, summary.failed) == (NUM_ROWS - 2, 2)
    failures = records_of(tmp_path / "out", "failures")
    assert {row["tag"] for row in failures} == {"row 3", "row 8"}
    why = "its machine will go soon" if with_notice else "its process was sent SIGTERM"
    assert all(row["message"].endswith(why) for row in failures), failures
    assert len(workers.retired) < (40 if with_notice else 12)


def test_while_a_job_is_paused_it_has_no_worker_and_its_time_stands(run: Run, tmp_path: Path) -> None:
    workers, summary = run(asked={3: {PAUSE}, 9: set()})
    assert summary and summary.done == NUM_ROWS
    assert workers.retired == [("worker-0", False), ("worker-1", False)] and workers.num_started == 4
    assert len(workers.goes_on) == 2, "half-done rows go on in the new workers"
    paused = [one for one in workers.seen if one.paused_since]
    assert len(paused) == 6 and len({one.elapsed_s for one in paused}) == 1
    assert not workers.seen[-1].paused_since
    assert len({record["row_id"] for record in records_of(tmp_path / "out")}) == NUM_ROWS


@pytest.mark.parametrize(
    ("asked", "turn", "replaced"),
    [({3: {PAUSE}, 5: set()}, 0, True), ({3: {PAUSE}, 6: {PAUSE, STOP}}, 6, False)],
)
def test_workers_that_still_drain_are_replaced_when_a_job_is_resumed_but_not_when_it_ends(
    asked: dict[int, set[str]], turn: int, replaced: bool, run: Run
) -> None:
    workers, summary = run(asked=asked, deaf_until=7 if replaced else 0)
    assert (summary and summary.done) == (NUM_ROWS if replaced else None)
    assert workers.retired == [("worker-0", replaced), ("worker-1", replaced)]
    assert workers.num_started == (4 if replaced else 2) and (not turn or workers.turn == turn)


def test_a_row_that_failed_begins_again_and_what_led_to_its_end_is_logged_before_it(
    run: Run, resolved: ResolvedJob, tmp_path: Path
) -> None:
    run(at={1: interrupt})
    first, second = sorted(path.stem for path in (tmp_path / "out" / CHECKPOINTS).iterdir())
    workers, summary = run(failing={first}, hopeless={second})
    assert workers.goes_on.count(first) == 1
    assert summary and (summary.done, summary.failed) == (NUM_ROWS - 3, 1)
    log = [line.message for line in Output(resolved.store).log(second)]
    assert log[-3:-1] == ["tried again alone", "E: "] and log[-1].startswith("given up: "), log


def test_what_an_engine_keeps_of_a_row_that_fails_at_once_is_there_for_retry(
    run: Run, resolved: ResolvedJob, tmp_path: Path
) -> None:
    run(at={1: interrupt})
    first, _ = sorted((tmp_path / "out" / CHECKPOINTS).iterdir())
    engine = VideosApi(type="videos_api", model="none", urls=["http://127.0.0.1:1"])
    with begun(resolved, beat_s=600) as (_, index, lock):
        left = left_of(resolved, index, lock)
        lanes = {
            key: replace(lane, setup=replace(lane.setup, model=replace(lane.setup.model, engine=engine)))
            for key, lane in left.lanes.items()
        }
        hello = hello_of(resolved)
        workers = Workers(resolved.store, hello, lock=lock, hopeless={first.stem}, keeps=True)
        assert drive(replace(left, lanes=lanes), workers).failed == 1
    assert [*(tmp_path / "out" / CHECKPOINTS).iterdir()] == [first]


def test_checkpoints_of_rows_that_have_a_record_are_swept_at_the_start(
    run: Run, resolved: ResolvedJob, tmp_path: Path
) -> None:
    run(at={2: interrupt})
    done = records_of(tmp_path / "out")[0]["row_id"]
    resolved.store.write(checkpoint_path(done), b"late")
    resolved.store.write(f"{CHECKPOINTS}/.DS_Store", b"")

    def once_swept() -> None:
        while resolved.store.exists(checkpoint_path(done)):
            time.sleep(0.01)
        interrupt()

    run(at={1: once_swept})
    assert resolved.store.exists(f"{CHECKPOINTS}/.DS_Store")
