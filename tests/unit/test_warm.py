"""Workers are forks where nothing of a fork can be missed, and else the Python that was asked for."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from framefleet.cluster.fleet.settings import FleetSettings
from framefleet.cluster.fleet.warm import server, start
from framefleet.cluster.fleet.warm.relay import main as relay
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.command import _imports_ahead

SCRIPT = "import os, sys; print(sys.argv[1], os.getcwd(), os.environ['OWN'], 'kept' in vars(os)); sys.exit(7)"
SERVER = """
import os, socket
from framefleet.cluster.fleet.warm import server
os.kept = True
driver = socket.socket(fileno=os.dup(0))
listener = socket.socket(fileno=socket.recv_fds(driver, 1, 1)[1][0])
server.run(*server.serve_forks(listener, server.read_on_import(os.environ), driver))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


def run(script: Path, place: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-IS", relay.__code__.co_filename, str(place), "-u", str(script), "word"],
        cwd=script.parent,
        env=os.environ | {"OWN": "mine"} | variables,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """The socket of a server that has imported nothing, and bears the mark `os.kept`."""
    path = tmp_path / "socket"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b"."], [listener.fileno()])
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=theirs)
    with process, listener, theirs, ours:
        yield path
        ours.shutdown(socket.SHUT_RDWR)  # which ends it


@pytest.mark.parametrize(
    ("has_server", "variables", "is_fork"),
    [
        (True, {}, True),
        (True, {"TORCHINDUCTOR_CACHE_DIR": "/elsewhere"}, True),  # which torch sets by itself
        (True, {"OMP_NUM_THREADS": "3"}, False),  # other variables than libraries were imported under
        (False, {}, False),
    ],
)
def test_a_fork_or_else_a_cold_process_runs_what_was_asked_for_and_gives_its_exit_code(
    has_server: bool, variables: dict[str, str], is_fork: bool, script: Path, place: Path
) -> None:
    ended = run(script, place if has_server else place.with_name("nowhere"), **variables)
    assert (ended.returncode, ended.stdout) == (7, f"word {script.parent} mine {is_fork}\n"), ended.stderr


def test_a_fork_has_a_process_group_of_its_own(tmp_path: Path, place: Path) -> None:
    """Ray ends the group of a worker that crashed: others, and the server, must not be in it."""
    script = tmp_path / "group.py"
    script.write_text("import os; print(os.getpgrp() == os.getpid(), 'kept' in vars(os))")
    assert run(script, place).stdout == "True True\n"


def test_a_fork_ends_with_its_relay(tmp_path: Path, place: Path) -> None:
    script = tmp_path / "sleeps.py"
    script.write_text("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    command = [sys.executable, "-IS", relay.__code__.co_filename, str(place), str(script)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    fork = os.pidfd_open(int(process.stdout.readline()))
    process.kill()
    process.wait()
    assert select.select([fork], [], [], 120)[0]  # it has ended
    os.close(fork)


def test_beside_other_threads_nothing_is_forked() -> None:
    assert server.is_alone() or len(os.listdir("/proc/self/task")) > 1
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert not server.is_alone()
    stop.set()
    thread.join()


@pytest.mark.parametrize(
    ("address", "device", "has_gpu", "may"),
    [
        (None, "auto", False, True),
        (None, "auto", True, False),
        (None, "cpu", True, True),
        ("auto", "cpu", False, False),
    ],
)
def test_only_workers_of_this_machine_that_meet_no_gpu_are_forks(
    address: str | None, device: str, has_gpu: bool, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "_GPUS", ("/" if has_gpu else "/nowhere",))
    assert start.may_fork(FleetSettings(address=address), device=device) is (may and sys.platform == "linux")


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forks under Linux")
def test_imports_begin_ahead_for_an_output_without_records_and_are_begun_once(
    tmp_path: Path,
) -> None:
    values = {"table": "t.csv", "output": str(tmp_path), "model": {"path": "m", "device": "cpu"}}
    threads = load_job(values).model.threads
    with _imports_ahead(load_job(values)), start.warm(threads=threads) as first:
        with start.warm(threads=threads) as second:
            assert first is second and first.place.exists()
        assert first.place.exists()
    assert not first.place.exists()
    (tmp_path / "records").mkdir()
    for more in ({}, {"output": "s3://bucket/run"}, {"output": "new", "fleet": {"address": "auto"}}):
        with _imports_ahead(load_job({**values, **more})):
            assert not start._ahead


POOL = """
import os, threading, torch
from framefleet.cluster.fleet.warm.server import renew_thread_pool

def compute():
    ready.wait()
    try:
        ones.exp()
    except RuntimeError as error:
        failed.append(error)

torch.set_num_threads(1)
ones = torch.ones(70_000)  # enough for torch to share it out among threads
ones.exp()
num_failed = 0
for _ in range(20):
    if not (pid := os.fork()):
        renew_thread_pool()
        ready, failed = threading.Barrier(2), []
        threads = [threading.Thread(target=compute) for _ in range(2)]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
        os._exit(len(failed))
    num_failed += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(num_failed)
"""


def test_threads_of_a_fork_that_compute_at_once_all_find_torchs_thread_pool() -> None:
    """Without `renew_thread_pool` seventeen forks of twenty fail."""
    ran = subprocess.run([sys.executable, "-c", POOL], capture_output=True, text=True, check=True)
    assert ran.stdout == "0\n"
