"""Processes that die of a signal are reported by it: Ray itself says of all that the connection ended."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
import ray
from ray.exceptions import RayError

from framefleet.cluster.fleet.connection import connect
from framefleet.cluster.fleet.losses import cause_of_loss


class Dying:
    def die(self, number: int) -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)


def reason_of_death(number: signal.Signals) -> str:
    with pytest.raises(RayError) as caught:
        ray.get(ray.remote(Dying).options(num_cpus=0).remote().die.remote(int(number)))
    return cause_of_loss(caught.value, is_ready=True).reason


def test_a_process_that_dies_is_reported_by_its_signal() -> None:
    with connect(None, num_cpus=1):
        for number in (signal.SIGILL, signal.SIGSEGV, signal.SIGBUS):
            assert reason_of_death(number) == f"its process crashed with {number.name}"
        assert reason_of_death(signal.SIGKILL).startswith("its process was killed (e.g. by SIGKILL)")


def test_frozen_processes_end_with_a_ray_of_our_own() -> None:
    others = {*psutil.Process().children(recursive=True)}
    with connect(None, num_cpus=1):
        ours = {*psutil.Process().children(recursive=True)} - others
        raylets = [process for process in ours if process.name() == "raylet"]
        frozen = [below for raylet in raylets for below in raylet.children(recursive=True)]
        assert frozen
        for process in frozen:
            process.suspend()
    _, alive = psutil.wait_procs(frozen, timeout=20)
    assert not alive
