"""A Ray that hangs or is lost keeps nobody: waits say what they are for, and end at a second Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from framefleet.cluster.fleet.connection import connect
from framefleet.pipeline.errors import FleetError
from tests import jobs
from tests.jobs import job_values, prompt_rows, read_until, start_render, wait_until, write_job, write_table
from tests.servers import warm_cluster
from tests.warm.process import start

ENDS_WITHIN_S = 45.0  # after the second Ctrl-C; at once on a free machine


@contextmanager
def hung(address: str) -> Iterator[str]:
    """Have the head of a cluster answer nobody meanwhile."""
    port = int(address.rpartition(":")[2])
    listening = psutil.net_connections("tcp")
    (head,) = {one.pid for one in listening if one.status == "LISTEN" and one.laddr.port == port}
    assert head
    os.kill(head, signal.SIGSTOP)
    try:
        yield address
    finally:
        os.kill(head, signal.SIGCONT)


def ray_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return all processes of the cluster that a command has started."""
    children = psutil.Process(process.pid).children(recursive=True)
    own = [child for child in children if child.name() in ("gcs_server", "raylet")]
    return [*own, *(below for one in own for below in one.children(recursive=True))]


@contextmanager
def suspended(processes: list[psutil.Process]) -> Iterator[None]:
    """Have them answer nobody meanwhile; in the end, none is left."""
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.suspend()
    yield
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive


@contextmanager
def silent() -> Iterator[str]:
    """Yield an address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_raylet_that_hangs_is_said_and_not_waited_for() -> None:
    with warm_cluster() as address:
        (raylet,) = (
            one for one in psutil.process_iter(["cmdline"]) if is_raylet(one.info["cmdline"], address)
        )
        raylet.suspend()
        try:
            with (
                pytest.raises(FleetError, match=r"the raylet of this machine.* does not answer"),
                connect(address, num_cpus=1),
            ):
                raise AssertionError("it was joined")
        finally:
            raylet.resume()


def is_raylet(command: list[str] | None, address: str) -> bool:
    words = command or [""]
    return words[0].endswith("/raylet") and f"--gcs-address={address}" in words


def job_at(folder: Path, address: str | None, num_rows: int = 3) -> Path:
    table = write_table(folder / "t.parquet", prompt_rows(num_rows))
    values = job_values(table, folder / "out", address=address) | {"recipe": "tests.faults:lingers"}
    return write_job(folder / "job.yaml", values)


def interrupted_twice(process: subprocess.Popen[str]) -> str:
    """Press Ctrl-C twice, with two seconds between; return what was printed."""
    for _ in range(2):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(2)
    printed, _ = process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode in (130, -signal.SIGINT), printed
    return printed


def test_an_address_that_says_nothing_is_left_at_a_second_interrupt(tmp_path: Path) -> None:
    with silent() as address:
        process = start_render(job_at(tmp_path, address))
        read_until("joining the Ray cluster", process)
        time.sleep(3)
        printed = interrupted_twice(process)
    assert "to continue: framefleet render" in printed


@pytest.mark.parametrize(("is_own", "is_asked_before"), [(True, True), (False, False)])
def test_a_ray_whose_head_hangs_while_rows_are_rendered_is_left_at_a_second_interrupt(
    is_own: bool, is_asked_before: bool, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        address = None if is_own else stack.enter_context(warm_cluster())
        process = start_render(job_at(tmp_path, address, num_rows=200))
        wait_until(lambda: list(tmp_path.glob("out/records/*.parquet")), process)
        hanging = suspended(ray_of(process)) if address is None else hung(address)
        if is_asked_before:
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        stack.enter_context(hanging)
        printed = interrupted_twice(process)
    assert "to continue: framefleet render" in printed


ROWS_PER_S = 16  # of silence: more than can be done, at half a second each, before it is noticed


@pytest.mark.promise("exit code 3", "Kill any process at any time")
@pytest.mark.parametrize(
    ("process", "told", "silence_s"),
    [
        ("gcs_server", "the head of the Ray cluster has not answered for", 12),
        # Longer than Ray itself would let this process live.
        pytest.param("gcs_server", "the head of the Ray cluster has not", 75, marks=pytest.mark.long),
        ("raylet", "the Ray of this machine (its raylet) has ended", 12),
    ],
)
def test_a_job_whose_ray_is_killed_says_so_and_loses_no_finished_row(
    tmp_path: Path, process: str, told: str, silence_s: float
) -> None:
    num_rows = round(ROWS_PER_S * silence_s)
    table = jobs.write_table(tmp_path / "t.parquet", jobs.prompt_rows(num_rows))
    fleet = {"workers": 2, "gpus_per_worker": 0, "silence_s": silence_s}
    values = jobs.job_values(table, tmp_path / "out", recipe="tests.faults:lingers", fleet=fleet)
    job = jobs.write_job(tmp_path / "job.yaml", values)
    render = start("-m", "framefleet.jobs.cli", "render", job, "--log-format", "json")
    jobs.wait_until(lambda: jobs.num_clips(tmp_path / "out") >= 4, render)
    finished = jobs.num_clips(tmp_path / "out")
    os.kill(child(render.pid, process), signal.SIGKILL)
    printed = jobs.finish(render, exits=3, timeout_s=120)
    lines = [json.loads(line) for line in printed.splitlines()]
    assert any(told in line["message"] for line in lines)
    assert "run the same command again to continue" in printed
    records = jobs.records_of(tmp_path / "out")
    assert finished <= len(records) < num_rows
    jobs.check_whole(tmp_path / "out")


def child(pid: int, name: str) -> int:
    """Return the process of this name below another."""
    (found,) = (p for p in jobs.descendants(pid) if Path(f"/proc/{p}/comm").read_text().strip() == name)
    return found
