"""What the driver checks of a worker before it gets rows; no Ray is started."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray
from pydantic import ValidationError

import framefleet
from framefleet.cluster.dispatch.faults import FaultPolicy, LostRows
from framefleet.cluster.driver.tally import Tally
from framefleet.cluster.fleet import connection, ray_start
from framefleet.cluster.fleet.actors import Slot, check_gpus, check_hello, modules_to_ship
from framefleet.cluster.fleet.connection import connect
from framefleet.cluster.fleet.fleet import Fleet
from framefleet.cluster.fleet.machines import Machine
from framefleet.cluster.fleet.settings import FleetSettings, shares
from framefleet.cluster.worker.messages import Hello
from framefleet.jobs.render.command import idle_lines
from framefleet.pipeline.errors import FleetError
from framefleet.pipeline.metrics import WORKER_SECONDS, idle_shares
from framefleet.pipeline.model.environment import source_fingerprint
from framefleet.pipeline.recipes.recipe import BUILT_IN, find_recipe
from framefleet.pipeline.rows.identity import LaneKey
from tests.jobs import ROOT

HELLO = Hello(
    version=framefleet.__version__,
    fingerprint=source_fingerprint(),
    model_digest="",
    environment={},
    node="elsewhere",
    pid=1,
)


def test_a_worker_of_the_same_build_is_welcome() -> None:
    check_hello("worker-0", HELLO)


@pytest.mark.parametrize("change", [{"version": "0.0.1"}, {"fingerprint": "another"}])
def test_a_worker_of_another_build_is_refused_with_the_fix(change: dict[str, str]) -> None:
    with pytest.raises(FleetError, match="worker-0 on elsewhere runs framefleet") as refusal:
        check_hello("worker-0", dataclasses.replace(HELLO, **change))  # type: ignore[arg-type]
    assert "install the same version" in refusal.value.fix


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1"])
def test_an_address_where_nothing_answers_is_refused_at_once(address: str) -> None:
    with pytest.raises(FleetError, match="no Ray cluster answers") as refusal, connect(address, num_cpus=1):
        pass
    assert "not known" not in refusal.value.problem


def test_an_empty_address_is_refused() -> None:
    with pytest.raises(ValidationError, match="HOST:PORT"):
        FleetSettings(address="")


@pytest.mark.parametrize("address", [None, "auto"])
def test_whatever_ray_raises_as_it_starts_is_an_error_of_the_cluster(
    address: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def init(**_: object) -> None:  # as Ray does on a busy machine
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(connection, "_reachable", lambda address: address)  # whether or not a Ray runs here
    monkeypatch.setattr(ray_start, "RETRY_AFTER_S", 0.0)
    monkeypatch.setattr(connection, "_own_folder", lambda _: nullcontext(tmp_path))
    with pytest.raises(FleetError, match="timed out during startup") as caught, connect(address, num_cpus=1):
        pass
    assert "again" in caught.value.fix or "check this address" in caught.value.fix


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


def test_without_a_worker_that_told_anything_nothing_is_said_of_idle_time() -> None:
    tally = Tally(4, now=0.0)
    tally.joined("worker-0", "here")
    assert idle_lines(tally.summary(tally.progress(1.0))) == []


def test_a_worker_that_finds_no_gpu_though_ray_gave_it_one_may_not_join() -> None:
    hello = dataclasses.replace(HELLO, environment={"device": "cpu", "torch": "2.13.0+cpu"}, node="gpu-7")
    with pytest.raises(FleetError, match=r"on gpu-7 a GPU, and torch 2.13.0\+cpu finds none"):
        check_gpus(hello, [0], "auto")
    check_gpus(hello, [0], "cpu")
    check_gpus(hello, [], "auto")
    check_gpus(dataclasses.replace(hello, environment={"device": "cuda"}), [0], "auto")


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


@pytest.mark.parametrize("gpus", [1.5, -1, 65])
def test_a_worker_takes_a_share_of_a_gpu_or_whole_ones(gpus: float) -> None:
    assert FleetSettings(gpus_per_worker=0.5).paid_gpus == 0.5
    assert FleetSettings(gpus_per_worker=2).paid_gpus == 2
    with pytest.raises(ValidationError, match=r"whole number|greater|less"):
        FleetSettings(gpus_per_worker=gpus)


def test_a_worker_of_several_gpus_has_them_on_one_machine() -> None:
    machines = [Machine(node_id=str(n), host="h", address="a", cpus=32, gpus=n) for n in (1, 2, 3, 8)]
    taken = shares(FleetSettings(gpus_per_worker=2), machines)
    assert taken.room(machines) == 0 + 1 + 1 + 4
    assert taken.options(threads=1, python=None)["num_gpus"] == 2
