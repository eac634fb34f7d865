"""What the driver makes of what workers report of faults, with a fleet that plays them; no Ray is started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from threading import Event as Signal
from typing import cast

import pyarrow as pa
import pytest

from framefleet import StoreError, Summary, open_output
from framefleet.cluster.dispatch.faults import FaultPolicy, LostRows
from framefleet.cluster.driver.earlier_runs import spent_before
from framefleet.cluster.driver.lock import DriverLock
from framefleet.cluster.fleet.events import Event, Lost, Ready, Reported
from framefleet.cluster.fleet.losses import Cause
from framefleet.cluster.worker.messages import Assignment, Failed, Hello, StoredRow, WorkerReport
from framefleet.cluster.worker.worker import Worker
from framefleet.jobs.render.lanes import setup_of
from framefleet.jobs.render.render import run_of
from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.jobs.render.survey import survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.metrics import FAILED_BY_TYPE, ROW_RETRIES, WORKER_SECONDS
from framefleet.pipeline.outputs.columns import ClipColumn
from framefleet.pipeline.outputs.parts.seals import new_run
from framefleet.pipeline.rows.identity import LaneKey
from framefleet.pipeline.rows.tables.index import RowIndex
from tests.driving import StandIns, drive, hello_of
from tests.jobs import job_values, prompt_rows, resolved_from, write_table
from tests.rows import RECORD
from tests.unit.test_encode_clip import CLIP

NUM_ROWS = 6
# Says that a row was done: deaths on its machine count from then on.
ONE_DONE = WorkerReport(figures={"done": 1})


@dataclass
class Played(StandIns):
    """One worker after another: those with a report send it first, the last one renders all."""

    hello: Hello
    reports: list[WorkerReport]
    number: int = 0
    is_ready: bool = False
    hand: list[Assignment] = field(default_factory=list)
    lost: list[Cause] = field(default_factory=list)
    explained: list[bool] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)  # rows, by errors of their own
    rehearsing: set[int] = field(default_factory=set)  # numbers of workers that were given the largest row

    def acquitted(self, worker: str, row_id: str) -> None:
        self.ended.append(row_id)

    def drain(self, worker: str) -> None:
        """It hands back all but the row that failed."""
        handed_back = tuple(assignment.row_id for assignment in self.hand[1:])
        self.reports.insert(0, WorkerReport(handed_back=handed_back))

    def exchange(self, worker: str, assignments: Sequence[Assignment], _: Sequence[str]) -> None:
        self.hand += assignments
        self.rehearsing |= {self.number for assignment in assignments if assignment.largest}

    def end(self, worker: str, cause: Cause) -> Lost:
        return Lost(worker, cause)

    def replace(self, lost: Lost, loss: LostRows) -> None:
        self.lost.append(lost.cause)
        self.explained.append(bool(loss.given_up))
        self.number, self.is_ready, self.hand = self.number + 1, False, []

    def wait(self, timeout_s: float) -> list[Event]:
        worker = f"worker-0.{self.number}"
        if not self.is_ready:
            self.is_ready = True
            return [Ready(worker, self.hello, ("machine", "worker-0"))]
        if self.reports[:1] == [ONE_DONE]:
            del self.reports[0]
            return [Reported(worker, WorkerReport(rendered=(_stored(self.hand.pop(0)),)))]
        if self.reports:
            report, first = self.reports.pop(0), self.hand[0].row_id
            failed = tuple(replace(failed, row_id=first) for failed in report.failed)
            rendering = tuple(first for _ in report.rendering)
            measuring = report.measuring and ("scores", first)
            return [
                Reported(worker, replace(report, failed=failed, rendering=rendering, measuring=measuring))
            ]
        stored = tuple(map(_stored, self.hand))
        self.hand = []
        return [Reported(worker, WorkerReport(rendered=stored))]


def _stored(row: Assignment) -> StoredRow:
    return StoredRow(record=replace(RECORD, row_id=row.row_id, attempt=row.attempt))


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResolvedJob]:
    folder = tmp_path_factory.mktemp("job")
    table = write_table(folder / "t.parquet", prompt_rows(NUM_ROWS))
    values = job_values(table, folder / "out", retries={"stall_s": 30})
    with resolved_from(values) as resolved:
        yield resolved


def run(resolved: ResolvedJob, *reports: WorkerReport) -> tuple[Summary, Played]:
    fleet = Played(hello_of(resolved), list(reports))
    with closing(RowIndex()) as index, DriverLock(resolved.store) as lock:
        survey = survey_rows(resolved, index, Callback())
        run = run_of(resolved, index, lock, run_id=new_run(lock.epoch), survey=survey)
        return drive(run, fleet), fleet


def failed(blame: str, *, is_final: bool = False) -> WorkerReport:
    one = Failed(row_id="", error_type="OSError", message="bad", traceback="", why="it is sick")
    one = replace(one, is_final=is_final)
    return WorkerReport(failed=(replace(one, blame=cast("Failed", blame)),))  # type: ignore[arg-type]


LONG_S = FaultPolicy(stall_s=30).longest_writing_s + 1


STORING = WorkerReport(writing_s=LONG_S, is_storing=True)
SCORING = WorkerReport(writing_s=LONG_S, measuring=("scores", "it"))
STILL = [WorkerReport(still_s=seconds, rendering=("it",)) for seconds in (29, 31)]


@pytest.mark.parametrize(
    ("reports", "num_failed", "kind", "num_suspects", "reason"),
    [
        ([failed("host")] * 10, 0, "machine", 0, "OSError: bad (it is sick)"),
        ([failed("memory")], 0, "machine", 0, "OSError: bad"),  # tried in a new process
        ([ONE_DONE, *[failed("worker")] * 3], 1, "machine", 1, "OSError: bad"),  # or the row has caused it
        ([failed("worker"), failed("row", is_final=True)], 1, "machine", 1, "OSError: bad"),
        ([ONE_DONE, *[SCORING] * 3], 1, "died", 1, "a function of `scores` has not returned for"),
        ([WorkerReport(writing_s=LONG_S)], 0, "machine", 0, "encoding a clip has taken"),
        ([ONE_DONE, *[STORING] * 9], 0, "machine", 0, "storing a clip has taken"),
        (STILL, 0, "died", 1, "it hung: no progress for 31 s with 1 row"),
    ],
    ids=["machine", "memory", "worker", "worker, then row", "score", "encoding", "storing", "hung"],
)
def test_a_fault_costs_the_row_an_attempt_only_where_the_row_may_be_why(
    reports: list[WorkerReport],
    num_failed: int,
    kind: str,
    num_suspects: int,
    reason: str,
    resolved: ResolvedJob,
) -> None:
    summary, fleet = run(resolved, *reports)
    assert (summary.done, summary.failed) == (NUM_ROWS - num_failed, num_failed)
    assert {(lost.kind, len(lost.suspects or ())) for lost in fleet.lost} == {(kind, num_suspects)}
    assert reason in fleet.lost[0].reason
    # A row that ends by its own error is no longer why a worker died.
    assert len(fleet.ended) == any(one.is_final for report in reports for one in report.failed)


def test_the_death_by_which_a_row_is_given_up_is_explained(resolved: ResolvedJob) -> None:
    before = spent_before(resolved.store)
    summary, _ = run(resolved, replace(failed("host"), figures={WORKER_SECONDS.key("plain"): 5.0}))
    spent = spent_before(resolved.store)  # what the next run hears of
    assert spent.worker_s == before.worker_s + 5.0
    assert spent.elapsed_s - before.elapsed_s == pytest.approx(summary.elapsed_s, abs=1)
    _, fleet = run(resolved, ONE_DONE, *[failed("worker")] * 3)
    assert fleet.explained == [False, False, True]
    with pytest.raises(StoreError, match="bad"):
        run(resolved, failed("output"))


def test_a_row_out_of_memory_in_a_new_process_too_is_given_up(resolved: ResolvedJob) -> None:
    summary, fleet = run(resolved, *[failed("memory")] * 2)
    assert (summary.done, summary.failed) == (NUM_ROWS - 1, 1)
    assert FAILED_BY_TYPE.by_label(summary.figures) == {"OSError": 1}
    assert ROW_RETRIES.of(summary.figures) == 1
    output = open_output(resolved.store.url_of(""))
    (row_id,) = [line.row_id for line in output.log() if line.message.startswith("given up")][-1:]
    last = [line for line in output.log(row_id) if not line.message.startswith("done")][-4:]
    assert [(line.level, line.worker, line.message) for line in last] == [
        ("warning", "worker-0.0", "OSError: bad"),
        ("info", "worker-0.1", "attempt 2"),
        ("warning", "worker-0.1", "OSError: bad"),
        ("warning", "", "given up: it ran out of memory on its own, where there is most of it"),
    ]
    assert len(fleet.lost) == 1


def test_after_a_death_no_worker_rehearses_as_that_may_have_been_why(resolved: ResolvedJob) -> None:
    _, fleet = run(resolved, failed("memory"), failed("host"), failed("worker"), failed("host"))
    assert (len(fleet.lost), fleet.rehearsing) == (4, {0, 1, 2})


def test_a_worker_names_the_row_whose_score_does_not_return(resolved: ResolvedJob) -> None:
    begun, goes_on = Signal(), Signal()

    def hangs(frames: object, record: object) -> float:
        begun.set()
        goes_on.wait(60)
        return 1.0

    hanging = ClipColumn(name="hangs", type=pa.float64(), section="scores", function=hangs)
    worker = Worker(replace(setup_of(resolved, LaneKey()), columns=[hanging]))
    worker._writers.start()
    worker._writers.put(CLIP, attempt=1)
    assert begun.wait(60)
    report = worker.exchange([])
    assert (report.measuring, report.writing_s > 0, report.rendered) == (("scores", CLIP.row_id), True, ())
    goes_on.set()
    while not (report := worker.exchange([])).rendered:
        assert not report.failed
    assert (report.measuring, report.writing_s) == (None, 0.0)
    assert report.rendered[0].added.values == {"hangs": 1.0}
