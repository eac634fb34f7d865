"""Workers that are silent, have a sick GPU or no model, on a Ray cluster: what the fleet does about it.

The workers are stand-ins without a model: each is told how to behave by the rows that it gets, or by a file.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import ray

import framefleet
from framefleet import FleetError, ModelError, Store
from framefleet.cluster.dispatch.faults import FaultPolicy
from framefleet.cluster.fleet import fleet as fleet_module
from framefleet.cluster.fleet.connection import connect
from framefleet.cluster.fleet.events import LaneLost, Lost, Ready, Reported, Starting
from framefleet.cluster.fleet.fleet import Fleet
from framefleet.cluster.fleet.settings import FleetSettings
from framefleet.cluster.worker.messages import Hello, Loading, WorkerReport, WorkerSetup
from framefleet.pipeline.model.environment import source_fingerprint
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.rows.identity import LaneKey

E = TypeVar("E")


class StandIn:
    """Behaves as the file `asked` in the folder of its store says, when it starts and when it is asked."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._asked = Path(setup.store.url_of("asked"))

    def start(self) -> Hello | Loading:
        asked = self._asked.read_text()
        if asked == "no model":
            raise ModelError("/models/wan is not there", "put it there")
        if asked == "no device":
            raise RuntimeError("CUDA error: no CUDA-capable device is detected")
        return Hello(
            version=framefleet.__version__,
            fingerprint=source_fingerprint(),
            model_digest="",
            environment={},
            node="here",
            pid=os.getpid(),
        )

    def exchange(self, _assignments: object, _dropped: object) -> WorkerReport:
        if self._asked.read_text() == "silence":
            time.sleep(3600)
        time.sleep(0.1)
        return WorkerReport()


@contextmanager
def fleet_of(folder: Path, asked: str, address: str, **more: Any) -> Iterator[Fleet]:
    (folder / "asked").write_text(asked)
    setup = WorkerSetup(
        model=ModelSettings(path="m", device="cpu"),
        batching=cast(Any, None),
        media=cast(Any, None),
        store=Store(str(folder)),
        recipes={},
        inputs=cast(Any, None),
    )
    settings = FleetSettings(**{"address": address, "workers": 1, "silence_s": 30} | more)
    with Fleet(settings, {LaneKey(): setup}, FaultPolicy(), worker_class=StandIn) as fleet:
        fleet.grow(10)
        yield fleet


def until(
    fleet: Fleet, kind: type[E], is_it: Callable[[E], bool] = lambda _: True, *, within_s: float = 240.0
) -> E:
    """Go on as a driver does until such an event comes; return it."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        for event in fleet.wait(0.5):
            if isinstance(event, kind) and is_it(event):
                return event
            if isinstance(event, Ready | Reported):
                fleet.exchange(event.worker, [])
            if isinstance(event, Lost):
                fleet.replace(event)
            if isinstance(event, LaneLost):  # of the only lane
                raise event.error
    raise AssertionError("no such event")


@pytest.mark.promise("Nothing is lost, and nothing is done twice")
def test_a_stopped_worker_is_lost_after_its_silence_and_another_takes_its_place(
    tmp_path: Path, ray_cluster: str
) -> None:
    with fleet_of(tmp_path, "", ray_cluster, silence_s=8) as fleet:
        first = until(fleet, Ready)
        fleet.rendered(first.worker, "row")
        fleet.exchange(first.worker, [])
        os.kill(first.hello.pid, signal.SIGSTOP)
        stopped_at = time.monotonic()
        gone = until(fleet, Lost)
        assert time.monotonic() - stopped_at > 7
        assert "has not answered for" in gone.cause.reason
        fleet.replace(gone)
        second = until(fleet, Ready)
        assert second.worker == f"{first.worker}.2"
        assert second.at == first.at


def test_a_machine_without_the_model_ends_the_job_by_what_must_change(
    tmp_path: Path, ray_cluster: str
) -> None:
    with (
        pytest.raises(ModelError, match="/models/wan is not there") as raised,
        fleet_of(tmp_path, "no model", ray_cluster) as fleet,
    ):
        until(fleet, Ready)
    assert "(on " in raised.value.problem, "the machine is named"
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("why", ["no model", "no device"])
def test_a_worker_that_does_not_start_ends_no_job_while_another_works(
    why: str, tmp_path: Path, ray_cluster: str
) -> None:
    with fleet_of(tmp_path, "", ray_cluster) as fleet:
        first = until(fleet, Ready)
        fleet._settings = fleet._settings.model_copy(update={"ready_timeout_s": 1})  # that start takes longer
        fleet.exchange(first.worker, [])
        (tmp_path / "asked").write_text(why)
        fleet.resize(2)
        gone = until(fleet, Lost)
        assert gone.worker != first.worker
        fleet.replace(gone)
        until(fleet, Reported, lambda event: event.worker == first.worker)
        began = time.monotonic()
        while time.monotonic() - began < 3:  # longer than any job would wait for its first worker here
            for event in fleet.wait(0.5):
                if isinstance(event, Reported):
                    fleet.exchange(event.worker, [])
                elif isinstance(event, Lost):
                    fleet.replace(event)


def test_of_too_many_workers_the_one_that_is_used_no_longer_goes_first(
    tmp_path: Path, ray_cluster: str
) -> None:
    with fleet_of(tmp_path, "", ray_cluster) as fleet:
        first = until(fleet, Ready)
        fleet.exchange(first.worker, [])
        (tmp_path / "asked").write_text("no device")
        fleet.resize(2)
        until(fleet, object, lambda _: bool(fleet.unused))
        fleet.resize(1)
        assert not fleet.has_too_many
        (tmp_path / "asked").write_text("")
        fleet.resize(2)
        second = until(fleet, Ready)
        assert second.worker != first.worker


def test_workers_without_room_are_told_once_and_the_others_work(
    tmp_path: Path, ray_cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    with fleet_of(tmp_path, "", ray_cluster, workers=9) as fleet:
        until(fleet, Ready)
        for _ in range(5):
            fleet.wait(0.1)
    told = [record.getMessage() for record in caplog.records if "there is room for" in record.getMessage()]
    assert len(told) == 1
    assert "there is room for 3 of 9 workers: each takes 0 GPUs and 1 CPU" in told[0]


def test_workers_that_wait_for_what_others_hold_are_reported(
    tmp_path: Path, ray_cluster: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "HELD_S", 0.5)

    with connect(ray_cluster, num_cpus=0):
        other = ray.remote(num_cpus=3)(dict).remote()
        ray.get(other.__ray_ready__.remote())
        with fleet_of(tmp_path, "", ray_cluster, workers=2) as fleet:
            until(fleet, Starting, lambda event: event.doing == "waiting for room that others hold")
            assert fleet.num_by_lane().total() == 2 and not fleet.num_serving()
            ray.kill(other)
            until(fleet, Ready)
    messages = [record.getMessage() for record in caplog.records if "others hold" in record.getMessage()]
    assert len(messages) == 1
    assert messages[0].startswith("others hold the room for 2 workers: each takes 0 GPUs and 1 CPU, ")
    assert "the cluster has 0 GPUs and 3 CPUs on 1 machine, and 0 GPUs and 0 CPUs are free" in messages[0]


def test_a_job_without_a_worker_ends_in_time_and_says_what_each_waits_for(
    tmp_path: Path, ray_cluster: str
) -> None:
    with (
        pytest.raises(FleetError, match=r"no worker was ready for \d s: 1 wait for a machine") as raised,
        fleet_of(tmp_path, "", ray_cluster, gpus_per_worker=1, ready_timeout_s=1) as fleet,
    ):
        until(fleet, Ready)
    assert "each needs 1 GPU and 1 CPU, the cluster has 0 GPUs and 3 CPUs" in raised.value.problem
