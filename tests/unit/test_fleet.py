"""How many workers there are, and what is checked of them and of machines before they get rows; no Ray."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import framefleet
from framefleet import FleetError, JobError, Progress
from framefleet.cluster.dispatch.faults import FaultPolicy, LostRows
from framefleet.cluster.driver.progress import WorkerState
from framefleet.cluster.driver.tally import MIN_ROWS, Scale, Tally
from framefleet.cluster.fleet import machines as machines_module
from framefleet.cluster.fleet.actors import Slot, check_gpus, check_hello, modules_to_ship
from framefleet.cluster.fleet.connection import connect
from framefleet.cluster.fleet.events import Event, Lost, Ready, Reported
from framefleet.cluster.fleet.fleet import Fleet
from framefleet.cluster.fleet.losses import Cause
from framefleet.cluster.fleet.machines import Machine, Machines
from framefleet.cluster.fleet.settings import ElasticWorkers, FleetSettings, Shares, machines_in_words, shares
from framefleet.cluster.worker.messages import Hello, StoredRow, WorkerReport
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.command import idle_lines
from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.pipeline.metrics import ROW_OUTCOMES, WORKER_SECONDS, idle_shares
from framefleet.pipeline.model.environment import source_fingerprint
from framefleet.pipeline.recipes.catalog import BUILT_IN, find_recipe
from framefleet.pipeline.rows.identity import LaneKey
from framefleet.plugins.train.job import TrainJob
from tests.driving import begun, drive, hello_of, left_of
from tests.jobs import ROOT, job_values, prompt_rows, records_of, resolved_from, write_table
from tests.rows import RECORD
from tests.unit.test_drain import Workers

HELLO = Hello(
    version=framefleet.__version__,
    fingerprint=source_fingerprint(),
    model_digest="",
    environment={},
    node="elsewhere",
    pid=1,
)


def test_a_worker_of_another_build_is_refused_with_the_fix() -> None:
    check_hello("worker-0", HELLO)
    for change in ({"version": "0.0.1"}, {"fingerprint": "another"}):
        with pytest.raises(FleetError, match="worker-0 on elsewhere runs framefleet") as refusal:
            check_hello("worker-0", replace(HELLO, **change))
        assert "install the same version" in refusal.value.fix


def test_an_address_where_nothing_answers_is_refused_at_once() -> None:
    for address in ("127.0.0.1:1", "[::1]:1"):
        with pytest.raises(FleetError, match="no Ray cluster answers") as refusal:
            connect(address, num_cpus=1).__enter__()
        assert "not known" not in refusal.value.problem


def test_the_users_own_module_is_brought_to_the_workers_and_ours_is_not() -> None:
    own = find_recipe("tests.faults:raises")
    assert modules_to_ship([own, BUILT_IN["generate"]]) == [str(ROOT / "tests")]


def test_a_worker_gets_the_cores_that_every_machine_has_for_its_gpus() -> None:
    auto = FleetSettings()
    assert auto.worker_cpus() == 1
    assert auto.worker_cpus([(16, 0), (2, 0)], gpus_per_worker=0) == 1
    assert auto.worker_cpus([(64, 8), (7, 2), (16, 0)], gpus_per_worker=1) == 3
    assert auto.worker_cpus([(64, 8)], gpus_per_worker=2) == 4  # more than it encodes with
    assert auto.worker_cpus([(1, 1)], gpus_per_worker=1) == 1
    assert FleetSettings(cpus_per_worker=0.5).worker_cpus([(64, 8)], gpus_per_worker=1) == 0.5


def test_idle_time_is_summed_over_workers_and_told_by_cause() -> None:
    tally = Tally(4, now=0.0)
    assert idle_lines(tally.summary(tally.progress(0.0))) == [], "no worker has reported"
    for number, idle in enumerate([{"rows": 1.0}, {"rows": 2.0, "media": 5.0}]):
        tally.joined(f"worker-{number}", "here")
        tally.counted(f"worker-{number}", {WORKER_SECONDS.key("rows"): 0.5})
        spent = {"load": 9.0, **idle, "denoise": 50.0 - sum(idle.values())}
        tally.counted(f"worker-{number}", {WORKER_SECONDS.key(cause): s for cause, s in spent.items()})
    summary = tally.summary(tally.progress(60.0))
    assert list(idle_shares(summary.figures).items()) == [("media", 0.05), ("rows", 0.03)]
    assert idle_lines(summary) == [
        "once loaded, the models worked 92.0% of the time, and waited for encoding 5.0%, rows 3.0%"
    ]
    assert tally.progress(60.0).spent.worker_s == 2 * (9 + 50)


def test_a_worker_that_finds_no_gpu_though_ray_gave_it_one_may_not_join() -> None:
    hello = replace(HELLO, environment={"device": "cpu", "torch": "2.13.0+cpu"}, node="gpu-7")
    with pytest.raises(FleetError, match=r"on gpu-7 a GPU, but torch 2.13.0\+cpu finds none"):
        check_gpus(hello, [0], "auto")
    check_gpus(hello, [0], "cpu")
    check_gpus(hello, [], "auto")
    check_gpus(replace(hello, environment={"device": "cuda"}), [0], "auto")


def test_a_lane_whose_rows_kill_their_workers_ends_by_that_and_not_for_lack_of_machines() -> None:
    setup: Any = None
    fleet = Fleet(FleetSettings(), {LaneKey(): setup}, FaultPolicy())
    fleet._resting.append(Slot(0))
    hosts = fleet._lanes.of(LaneKey())
    for number in range(25):
        assert fleet._hopeless(LaneKey()) is None
        hosts.placed(f"worker-{number}", f"{number}", f"machine {number}")
        loss = LostRows(rows=["x"], given_up=["x"])
        hosts.fault(f"worker-{number}", "SIGSEGV", kind="died", now=0.0, loss=loss)
    assert "rows that killed their workers, with none done in between: 25" in str(fleet._hopeless(LaneKey()))
    fleet._resting.clear()
    assert "no machine is left" in str(fleet._hopeless(LaneKey()))


def test_a_worker_takes_a_share_of_a_gpu_or_whole_ones_of_a_named_cluster() -> None:
    assert FleetSettings(gpus_per_worker=0.5).paid_gpus == 0.5
    assert FleetSettings(gpus_per_worker=2).paid_gpus == 2
    for gpus in (1.5, -1, 65):
        with pytest.raises(ValidationError, match=r"whole number|greater|less"):
            FleetSettings(gpus_per_worker=gpus)
    with pytest.raises(ValidationError, match="HOST:PORT"):
        FleetSettings(address="")


def test_a_worker_of_several_gpus_has_them_on_one_machine() -> None:
    machines = [Machine(node_id=str(n), host="h", address="a", cpus=32, gpus=n) for n in (1, 2, 3, 8)]
    taken = shares(FleetSettings(gpus_per_worker=2), machines)
    assert taken.room(machines) == 0 + 1 + 1 + 4
    assert taken.options(threads=1, python=None)["num_gpus"] == 2


HEAD = Machine(node_id="h", host="head", address="10.0.0.1")
SMALL = Machine(node_id="a", host="small", address="10.0.0.2", cpus=8, gpus=1)
LARGE = Machine(node_id="b", host="large", address="10.0.0.3", cpus=64, gpus=8)
HERE = Machine(node_id="a", host="small", address="127.0.0.1", cpus=8)


def room(machines: list[Machine], *, cpus: float, gpus: float, but: Sequence[str] = ()) -> int:
    return Shares(cpus=cpus, gpus=gpus, asked=None).room(machines, but=but)


def test_room_is_counted_machine_by_machine() -> None:
    assert room([HEAD, SMALL, LARGE], cpus=4, gpus=1) == 9
    assert room([HEAD, SMALL, LARGE], cpus=16, gpus=2) == 4, "one alone has 16 cores and 2 GPUs"
    assert room([HEAD, SMALL, LARGE], cpus=1, gpus=0) == 72
    assert room([SMALL, LARGE], cpus=4, gpus=1, but=["b"]) == 1
    assert room([HEAD], cpus=1, gpus=0) == 0
    assert room([LARGE], cpus=1, gpus=0.4) == 16, "two on each card"
    assert room([SMALL], cpus=1, gpus=0.2) == 5
    assert room([replace(SMALL, gpus=0.5)], cpus=1, gpus=0.25) == 2, "of a card that others share"


def test_auto_is_as_many_workers_as_have_room_and_grows_with_the_cluster() -> None:
    auto = shares(FleetSettings(address="auto"), [HEAD, SMALL])
    assert (auto.gpus, auto.cpus, auto.asked) == (1, 4, None)
    assert auto.num_workers([HEAD, SMALL]) == 1
    assert auto.num_workers([HEAD, SMALL, LARGE]) == 9
    assert auto.num_workers([HEAD, SMALL, LARGE], but=["b"]) == 1
    assert (
        shares(FleetSettings(), [Machine(node_id="a", host="", address="", cpus=9)]).asked == os.cpu_count()
    )
    assert shares(FleetSettings(address="auto", workers=4), [SMALL]).num_workers([SMALL]) == 4
    assert machines_in_words([HEAD, SMALL, LARGE]) == "9 GPUs and 72 CPUs on 3 machines"


def test_machines_that_have_died_are_not_there() -> None:
    dead = Machine(node_id="b", host="", address="", is_alive=False)
    with Machines("a", look=lambda: [HERE, dead]) as machines:
        machines.check(silent_s=11, limit_s=12)
        assert [machine.name for machine in machines.alive] == ["small (127.0.0.1)"]
        assert machines.find(node_id="b") is None
        assert machines.find(address="127.0.0.1") == machines.alive[0]


@pytest.mark.parametrize(
    ("is_alive", "silent_s", "problem"),
    [
        (True, 13, "head of the Ray cluster has not answered for 13 s"),
        (False, 0, "has given this machine up"),
    ],
)
def test_a_head_that_does_not_answer_or_gave_this_machine_up_ends_its_driver(
    is_alive: bool, silent_s: float, problem: str
) -> None:
    def is_silent() -> list[Machine]:
        raise TimeoutError("Deadline Exceeded")

    here = replace(HERE, is_alive=is_alive)
    with Machines("a", look=lambda: [here]) as machines, pytest.raises(FleetError, match=problem):
        machines.check(silent_s=silent_s, limit_s=12)
    with pytest.raises(FleetError, match="not answer: Deadline Exceeded"), Machines("a", look=is_silent):
        pass


def test_a_ray_that_has_ended_here_is_found_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines_module, "LOOK_EVERY_S", 0.01)
    looked, failed, num_looks = threading.Event(), threading.Event(), 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = replace(HERE, port=listener.getsockname()[1])

        def look() -> list[Machine]:
            nonlocal num_looks
            num_looks += 1
            if num_looks == 3:
                listener.close()
            if num_looks > 4:
                looked.set()
            if num_looks > 6:
                failed.set()
                raise ConnectionError("the head is gone")
            return [here]

        with Machines("a", look=look) as machines:
            assert looked.wait(60)
            with pytest.raises(FleetError, match="its raylet"):
                machines.check(silent_s=0, limit_s=12)
            assert failed.wait(60)
            assert machines.num_looks == 6, "a look that fails is no answer"


def test_rows_may_stand_still_for_ten_forwards_a_minute_at_least_and_never_longer_than_the_job_says() -> None:
    faults = FaultPolicy(stall_s=1000)
    assert faults.longest_still_s(None, num_rows=8) == 1000
    assert faults.longest_still_s(0.1, num_rows=8) == 60
    assert faults.longest_still_s(2.0, num_rows=8) == 160
    assert faults.longest_still_s(100.0, num_rows=8) == 1000
    assert FaultPolicy(stall_s=4).longest_still_s(0.1, num_rows=8) == 4


WORKERS = ElasticWorkers(min=2, max=40, target_s=100)


def progress(*, done: int, left: int, elapsed_s: float, num_busy: int = 1, others: int = 0) -> Progress:
    """others: rows that are done without having been rendered; less than 0: those taken back."""
    workers = [WorkerState(name=f"w{number}", state="rendering") for number in range(num_busy)]
    return Progress(
        total=done + others + left,
        done=done + others,
        failed=0,
        in_flight=0,
        elapsed_s=elapsed_s,
        rows_per_s=None,
        eta_s=None,
        mean_batch=None,
        figures={ROW_OUTCOMES.key("done"): done},
        workers=(*workers, WorkerState(name="idle", state="idle"), WorkerState(name="gone", state="lost")),
    )


def test_the_least_until_it_is_known_how_long_rows_take() -> None:
    settings, scale = FleetSettings(workers=WORKERS), Scale(WORKERS)
    assert (settings.max_workers, settings.num_cpus, shares(settings, []).asked) == (40, 41, 2)
    assert scale.wanted(progress(done=MIN_ROWS - 1, left=1000, elapsed_s=35)) == 2
    assert scale.wanted(progress(done=MIN_ROWS, left=790, elapsed_s=40)) == 40  # 39.5


@pytest.mark.parametrize(("left", "wanted"), [(0, 2), (40, 2), (41, 3), (400, 20), (10**8, 40)])
def test_as_many_as_finish_the_rows_left_in_time(left: int, wanted: int) -> None:
    assert Scale(WORKERS).wanted(progress(done=20, left=left, elapsed_s=50, num_busy=2)) == wanted


def test_clips_of_an_earlier_run_do_not_count_and_rows_to_be_rendered_again_do() -> None:
    scale = Scale(WORKERS)
    assert scale.wanted(progress(done=0, others=10**4, left=400, elapsed_s=1, num_busy=0)) == 2
    assert scale.wanted(progress(done=20, others=10**4, left=400, elapsed_s=101)) == 20
    scale = Scale(WORKERS)
    assert scale.wanted(progress(done=100, left=0, elapsed_s=500)) == 2
    assert scale.wanted(progress(done=100, others=-50, left=50, elapsed_s=500)) == 3


def test_what_rows_took_long_ago_is_forgotten() -> None:
    scale = Scale(WORKERS)
    scale.wanted(progress(done=MIN_ROWS, left=400, elapsed_s=50 * MIN_ROWS))
    wanted = [scale.wanted(progress(done=done, left=390, elapsed_s=5 * done)) for done in range(80, 4000)]
    assert wanted[-1] == 20


def test_a_training_has_workers_that_stay_as_many() -> None:
    values = {"table": "t", "model": "m", "output": "o", "fleet": {"workers": {"max": 2}}, "train": {}}
    with pytest.raises(JobError, match="workers that does not change"):
        load_job(values, kind=TrainJob)


H100, A100 = ({"gpu": name, "cpu": "Xeon"} for name in ("H100", "A100"))


@dataclass
class Mixed(Workers):
    """Workers of different machines, of which the driver may refuse some."""

    environments: tuple[dict[str, str], ...] = ()
    refused: list[Cause] = field(default_factory=list)

    def wait(self, timeout_s: float) -> list[Event]:
        if not self.num_started:
            self.num_started = len(self.environments)
            return [
                Ready(f"worker-{number}", replace(self.hello, environment=environment, node=f"node-{number}"))
                for number, environment in enumerate(self.environments)
            ]
        return [Reported(worker, self._report(worker)) for worker in list(self.hands)]

    def _report(self, worker: str) -> WorkerReport:
        rows, self.hands[worker] = self.hands[worker], []
        said = json.dumps(self.environments[int(worker[-1])])
        records = [replace(RECORD, row_id=row.row_id, environment=said) for row in rows]
        return WorkerReport(rendered=tuple(StoredRow(record=record) for record in records))

    def end(self, worker: str, cause: Cause) -> Lost:
        self.refused.append(cause)
        return Lost(worker, cause)

    def replace(self, lost: Lost, loss: LostRows) -> None:
        """None takes its place."""


@pytest.fixture
def resolved(tmp_path: Path) -> Iterator[ResolvedJob]:
    values = job_values(write_table(tmp_path / "t.parquet", prompt_rows(4)), tmp_path / "out")
    values["fleet"]["same_gpu"] = True
    with resolved_from(values) as resolved:
        yield resolved


def render(resolved: ResolvedJob, *environments: dict[str, str], only: int = 4) -> list[Cause]:
    workers = Mixed(resolved.store, hello_of(resolved), environments=environments)
    with begun(resolved) as (_, index, lock):
        index.leave_only(row_id for _, row_id in index.pending_in(0, only))
        drive(left_of(resolved, index, lock), workers)
    return workers.refused


def gpus(output: Path) -> list[str]:
    return [json.loads(record["environment"]).get("gpu") for record in records_of(output)]


def test_the_first_worker_decides_others_are_refused_by_name_and_an_output_keeps_its_gpu(
    resolved: ResolvedJob, tmp_path: Path
) -> None:
    (refused,) = render(resolved, H100, A100, H100, only=2)
    assert refused.kind == "refused" and "worker-1 on node-1 has A100" in refused.reason
    assert "this output is rendered on H100 (fleet.same_gpu)" in refused.reason
    assert len(render(resolved, A100, H100)) == 1
    assert gpus(tmp_path / "out") == ["H100"] * 4


def test_without_a_gpu_the_processor_decides_where_somebody_asks(
    resolved: ResolvedJob,
) -> None:
    (refused,) = render(resolved, {"cpu": "Xeon"}, {"cpu": "EPYC"}, only=2)
    assert "has EPYC, but this output is rendered on Xeon" in refused.reason
    fleet = resolved.job.fleet.model_copy(update={"same_gpu": False})
    resolved = replace(resolved, job=resolved.job.model_copy(update={"fleet": fleet}))
    assert not render(resolved, H100, A100)
