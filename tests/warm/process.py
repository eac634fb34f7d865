"""Processes that start warm: forks of one that has imported torch, diffusers and framefleet already.

Importing them takes eight seconds of a core, for every driver and every worker, and eleven for every process
that runs tests. To everyone else a fork is what `subprocess.Popen` starts: a child of this process, with pid,
streams, signals and an exit code.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tools.chaos.namespaces import HOST

ROOT = Path(__file__).parents[2]
PR_SET_CHILD_SUBREAPER = 36
# Variables that libraries read while they are imported: where one is not what it was then, a process is cold.
READ_ON_IMPORT = ("DIFFUSERS_", "HF_", "HUGGINGFACE_", "OMP_", "PYTORCH_", "TORCH", "TRANSFORMERS_")
READ_WHEN_USED = ("HF_TOKEN", "TORCHINDUCTOR_CACHE_DIR")  # the latter set by torch itself
# Which programs that it starts are forks too; of Ray's, not those that look for their parent.
PROGRAMS = (
    "setup_worker.py",
    "log_monitor.py",
    "monitor.py",
    "dashboard.py",
    "tools.benchmarks.training",
    "cluster.fleet.warm.server",
    "framefleet",
    "examples/pick.py",
    "examples/read_back.py",
    "exec(eval(sys.stdin.readline()))",  # of xdist, whose processes run tests
)
PYTHON = """#!{python} -IS
import array, json, os, socket, sys
arguments = sys.argv[1:]
if not any(argument.endswith({programs}) for argument in arguments):
    os.execv("{python}", ["{python}", *arguments])
with socket.socket(socket.AF_UNIX) as server:
    server.connect(os.environ["WARM_SOCKET"])
    server.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    asked = dict(arguments=arguments, environment=dict(os.environ), folder=os.getcwd())
    server.sendall(json.dumps(asked).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(3) or 1))
"""


def start(
    *arguments: str | Path, is_cold: bool = False, env: Mapping[str, str] | None = None, **more: Any
) -> subprocess.Popen[str]:
    """Start `python *arguments` with this process's environment, in a process group of its own.

    is_cold: with all its imports, as on any machine; to be said where libraries would see other variables as
    they are imported, or a start takes ten times as long and nobody notices. env: what is added to the
    environment; with `HOST` the process is on that host (tools/chaos). more: of `subprocess.Popen`.
    """
    env = {**_environment(), **(env or {})}
    seen, was = _read_on_import(env), _server().read_on_import
    assert is_cold or seen == was, f"only a cold process sees {dict(seen.items() ^ was.items())}"
    assert not (is_cold and HOST in env), "a process that starts cold is not on its host"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return (subprocess.Popen if is_cold else _Fork)(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=env,
        text=True,
        start_new_session=True,
        **(streams | more),
    )


class _Fork(subprocess.Popen[str]):
    """What Popen starts, but by the server. Of its options, those that `start` uses have an effect."""

    def _execute_child(self, args: list[str], *more: Any) -> None:
        cwd, env, pipes = more[4], more[5], more[9:15]
        ends = zip((pipes[0], pipes[3], pipes[5]), range(3), strict=True)  # the child's; -1 is ours
        asked = {
            "arguments": args[1:],
            "environment": env | _server().variables,
            "folder": str(cwd),
            "parent": os.getpid(),
        }
        with socket.socket(socket.AF_UNIX) as server, _adopting():
            server.connect(str(_server().socket))
            socket.send_fds(server, [b"."], [number if end == -1 else end for end, number in ends])
            server.sendall(json.dumps(asked).encode())
            server.shutdown(socket.SHUT_WR)
            self.pid = int(server.recv(16))
        self._child_created = True
        self._close_pipe_fds(*pipes)


@contextmanager
def _adopting() -> Iterator[None]:
    """Meanwhile, orphans below this process become its children."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0)


def shell_environment(folder: Path) -> dict[str, str]:
    """Return the environment of a shell whose `python` and `framefleet` start warm. folder: for these."""
    (folder / "python").symlink_to(_server().python)
    (folder / "framefleet").write_text(f'#!/bin/sh\nexec {_server().python} -m framefleet "$@"\n')
    (folder / "framefleet").chmod(0o700)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**_environment(), **_server().variables, "PATH": path}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Have processes that run tests be forks of one server, of this process."""
    os.environ |= _server().variables
    for spec in specs:
        spec.python = shlex.quote(str(_server().python))


@dataclass(frozen=True, slots=True)
class _Server:
    """socket: where it listens, in a folder of such. read_on_import: the variables that its imports saw."""

    socket: Path
    read_on_import: dict[str, str]

    @property
    def variables(self) -> dict[str, str]:
        """What `python` wants in its environment."""
        return {"WARM_FOLDER": str(self.socket.parent), "WARM_SOCKET": str(self.socket)}

    @property
    def python(self) -> Path:
        """Whoever starts it gets a fork, if its program is one of `PROGRAMS`."""
        return self.socket.with_name("python")


@functools.cache
def _server() -> _Server:
    """Return the server that a fork has below it; else start one, once per process."""
    below = Path(os.environ.get("WARM_SOCKET", ""))
    if below.name == str(os.getpid()):
        return _Server(below, _READ_ON_IMPORT)
    folder, env = Path(tempfile.mkdtemp(prefix="warm-")), _environment()
    (folder / "python").write_text(PYTHON.format(python=sys.executable, programs=PROGRAMS))
    (folder / "python").chmod(0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen()
        command = [sys.executable, "-W", "ignore", "-m", "tests.warm.server", str(listener.fileno())]
        server = subprocess.Popen(
            command,
            pass_fds=[listener.fileno()],
            cwd=ROOT,
            env=env,
            stderr=subprocess.DEVNULL,  # what libraries say as they are imported; forks have their own
        )
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)
    return _Server(folder / "socket", _read_on_import(env))


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def _read_on_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_ON_IMPORT) and name not in READ_WHEN_USED
    }


_READ_ON_IMPORT = _read_on_import(_environment())  # before tests change any
