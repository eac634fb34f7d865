"""A Ray that hangs keeps nobody: each wait for it says what it is, and ends at a second Ctrl-C."""

from __future__ import annotations

import contextlib
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
from tests.jobs import job_values, prompt_rows, read_until, start_render, wait_until, write_job, write_table
from tests.servers import warm_cluster

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
