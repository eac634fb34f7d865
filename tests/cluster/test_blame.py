"""Faults that are not the rows': none is given up for them. And rows that hang, which are."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.exceptions import RayError

import framefleet
from framefleet import FleetError, Summary
from framefleet.cluster.fleet.connection import connect
from framefleet.cluster.fleet.losses import cause_of_loss
from tests.jobs import job_values, prompt_rows, records_of, write_table


def rendered(
    folder: Path, rows: list[dict[str, Any]], recipe: str, address: str, **retries: float
) -> Summary:
    """Render rows with one worker and one of the recipes that go wrong."""
    table = write_table(folder / "t.parquet", [row | {"recipe": f"tests.faults:{recipe}"} for row in rows])
    fleet = {"workers": 1, "gpus_per_worker": 0, "address": address}
    values = job_values(table, folder / "out", recipe=f"tests.faults:{recipe}", fleet=fleet, retries=retries)
    return framefleet.render(values)


def test_a_sick_gpu_gets_a_fresh_process_and_no_row_is_given_up(tmp_path: Path, ray_cluster: str) -> None:
    rows = [row | {"prompt": str(tmp_path / "sick")} for row in prompt_rows(8)]
    summary = rendered(tmp_path, rows, "sick_gpu", ray_cluster)
    assert (summary.done, summary.failed, summary.unused) == (8, 0, ())
    assert {record["worker"] for record in records_of(tmp_path / "out")} == {"worker-0.2"}


@pytest.mark.promise("exit code 3")
def test_a_full_disk_ends_the_job_after_three_tries_with_the_machine_named_and_no_row_given_up(
    tmp_path: Path, ray_cluster: str
) -> None:
    with pytest.raises(FleetError, match="no machine is left") as raised:
        rendered(tmp_path, prompt_rows(8), "full_disk", ray_cluster)
    told = raised.value.problem
    assert "is no longer used: OSError: [Errno 28] No space left on device" in told
    assert "a disk of this machine is full, read-only or broken" in told
    assert records_of(tmp_path / "out", "failures") == []


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
