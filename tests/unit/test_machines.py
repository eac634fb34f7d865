"""What a cluster's machines have room for, and when the cluster is lost; no Ray is started."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from framefleet.cluster.dispatch.faults import FaultPolicy
from framefleet.cluster.fleet import machines as machines_module
from framefleet.cluster.fleet.machines import Machine, Machines
from framefleet.cluster.fleet.settings import FleetSettings, Shares, machines_in_words, shares
from framefleet.pipeline.errors import FleetError

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


def test_a_head_that_does_not_answer_is_told() -> None:
    with (
        Machines("a", look=lambda: [HERE]) as machines,
        pytest.raises(FleetError, match="head of the Ray cluster has not answered for 13 s"),
    ):
        machines.check(silent_s=13, limit_s=12)


def test_a_machine_that_the_cluster_gave_up_ends_its_driver() -> None:
    with (
        Machines("a", look=lambda: [replace(HERE, is_alive=False)]) as machines,
        pytest.raises(FleetError, match="has given this machine up"),
    ):
        machines.check(silent_s=0, limit_s=12)


def test_a_ray_that_has_ended_on_this_machine_is_found_at_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machines_module, "LOOK_EVERY_S", 0.01)
    looked, num_looks = threading.Event(), 0
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def look() -> list[Machine]:
            nonlocal num_looks
            num_looks += 1
            if num_looks == 3:
                listener.close()
            if num_looks > 4:
                looked.set()
            return [replace(HERE, port=port)]

        port = listener.getsockname()[1]
        with Machines("a", look=look) as machines:
            assert looked.wait(60)
            with pytest.raises(FleetError, match="its raylet"):
                machines.check(silent_s=0, limit_s=12)


def test_a_look_that_fails_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines_module, "LOOK_EVERY_S", 0.01)
    failed = threading.Event()
    answers = iter([[HERE]])

    def look() -> list[Machine]:
        with suppress(StopIteration):
            return next(answers)
        failed.set()
        raise ConnectionError("the head is gone")

    with Machines("a", look=look) as machines:
        assert failed.wait(60)
        assert machines.num_looks == 1


def test_a_head_that_does_not_answer_at_the_start_is_an_error_of_the_cluster() -> None:
    def look() -> list[Machine]:
        raise TimeoutError("Deadline Exceeded")

    with pytest.raises(FleetError, match="does not answer: Deadline Exceeded"), Machines("a", look=look):
        pass


def test_rows_may_stand_still_for_ten_forwards_a_minute_at_least_and_never_longer_than_the_job_says() -> None:
    faults = FaultPolicy(stall_s=1000)
    assert faults.longest_still_s(None, num_rows=8) == 1000
    assert faults.longest_still_s(0.1, num_rows=8) == 60
    assert faults.longest_still_s(2.0, num_rows=8) == 160
    assert faults.longest_still_s(100.0, num_rows=8) == 1000
    assert FaultPolicy(stall_s=4).longest_still_s(0.1, num_rows=8) == 4
