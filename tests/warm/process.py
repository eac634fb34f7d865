"""Processes that start warm: forks of one that has imported torch, diffusers and framefleet already.

Importing them takes eight seconds of a core, for every driver and every worker, and eleven for every process
that runs tests. To everyone else a fork is what `subprocess.Popen` starts: a child of this process, with pid,
streams, signals and an exit code.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from framefleet.cluster.fleet.warm.server import Asked, read_on_import
from framefleet.cluster.fleet.warm.start import RELAY, environment_of_imports, warm
from tools.chaos.namespaces import HOST

ROOT = Path(__file__).parents[2]
PR_SET_CHILD_SUBREAPER = 36
# Which programs that it starts are forks too; of Ray's, not those that look for their parent.
PROGRAMS = (
    "setup_worker.py",
    "log_monitor.py",
    "monitor.py",
    "dashboard.py",
    "tools.benchmarks.training",
    "cluster.fleet.warm.server",
    "pipeline.model.library_process",
    "framefleet",
    "examples/pick.py",
    "examples/read_back.py",
    "exec(eval(sys.stdin.readline()))",  # of xdist, whose processes run tests
)
PYTHON = """#!/bin/sh
for word; do
    case "$word" in {programs}) exec {python} -IS {relay} "$WARM_SOCKET" "$@";; esac
done
exec {python} "$@"
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
        asked = Asked(
            arguments=args[1:],
            environment=env | _server().variables,
            folder=str(cwd),
            parent=os.getpid(),
        )
        with socket.socket(socket.AF_UNIX) as server, _adopting():
            server.connect(str(_server().socket))
            socket.send_fds(server, [b"."], [number if end == -1 else end for end, number in ends])
            server.sendall(json.dumps(asdict(asked)).encode())
            server.shutdown(socket.SHUT_WR)
            answer = server.recv(16)
        differing = read_on_import(env).items() ^ _server().seen.items()
        assert answer != b"c", f"only a cold process sees {dict(differing)}"
        self.pid = int(answer)
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
    """socket: where it listens, in a folder of such. seen: the variables that its imports saw."""

    socket: Path
    seen: dict[str, str]

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
        return _Server(below, _SEEN)
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    place = stack.enter_context(warm(threads=1, server="tests.warm.server")).place
    names = {"python": sys.executable, "relay": RELAY}
    programs = "|".join(f"*{shlex.quote(program)}" for program in PROGRAMS)
    server = _Server(place, read_on_import(_environment()))
    server.python.write_text(PYTHON.format(programs=programs, **names))
    server.python.chmod(0o700)
    return server


def _environment() -> dict[str, str]:
    return environment_of_imports(threads=1)


_SEEN = read_on_import(_environment())  # before tests change any
