"""A process that has imported torch, diffusers and framefleet: who asks for a Python gets a fork of it.

Run as a program, with a listening socket and a folder for more of them. A fork goes on as the Python that was
asked for: its arguments, environment, folder, streams and session; it ends as an interpreter does. What it
starts as another Python, as Ray does by `sys.executable`, is a fork too, of a server of its own: so it stands
below it in the tree of processes, and goes with it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import json
import os
import runpy
import signal
import socket
import sys
import tempfile
import threading
import time
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

# What drivers, workers and processes that run tests import. Not Ray, whose workers crash if it was imported
# before the fork.
import framefleet.cluster.worker.worker
import framefleet.jobs.cli
import framefleet.jobs.render.claim
import framefleet.jobs.show.progress
import framefleet.plugins.train.claim
import framefleet.plugins.train.resolve  # noqa: F401
import tests.tiny  # noqa: F401
from framefleet.cluster.fleet.warm.server import renew_thread_pool
from tools.chaos.namespaces import HOST, enter

if TYPE_CHECKING:
    from ray._private.runtime_env.context import RuntimeEnvContext

PR_SET_PDEATHSIG = 1
# In the environment of forks: where servers have their sockets, and which one is theirs.
FOLDER, SOCKET = "WARM_FOLDER", "WARM_SOCKET"
EXECUTABLE = sys.executable


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a Python is to be. arguments: of the command line, options of Python's included.

    parent: the process that adopts it; None for a relay, which lives as long as the fork.
    """

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    parent: int | None = None


def serve(listener: socket.socket) -> tuple[list[str], socket.socket]:
    """Fork for everyone who asks. Returns in the forks only: what to run, and where to send its exit code."""
    end_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks that ended leave nothing
    while True:
        connection, _ = listener.accept()
        _, descriptors, *_ = socket.recv_fds(connection, 1, 3)
        with connection.makefile() as text:
            asked = Asked(**json.load(text))
        if _fork(asked):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            become(asked, connection, descriptors)
            return asked.arguments, connection
        for descriptor in (*descriptors, connection.detach()):
            os.close(descriptor)


def _fork(asked: Asked) -> bool:
    """Tell whether this is the fork."""
    if os.fork():
        return False
    if asked.parent is not None:
        if os.fork():  # whose end makes an orphan of its fork, for `parent` to adopt
            os._exit(0)
        while os.getppid() != asked.parent:
            time.sleep(0.001)
    return True


def become(asked: Asked, connection: socket.socket, descriptors: list[int]) -> None:
    """Take over what a process has from its start."""
    if asked.parent is not None:
        os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rww")
    )
    sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")
    if host := asked.environment.get(HOST):
        enter(int(host), "uts", "net", "mnt")
    os.chdir(asked.folder)
    os.environ.clear()
    os.environ.update(asked.environment)
    renew_thread_pool()
    tempfile.tempdir = None  # it may have been looked for already, in another environment
    if asked.parent is None:
        _end_with(connection)
    else:
        connection.sendall(str(os.getpid()).encode())


def _end_with(connection: socket.socket) -> None:
    """Have this process killed when the other end closes."""
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(connection, fcntl.F_SETFL, os.O_ASYNC)


def end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve_below(asker: socket.socket) -> tuple[list[str], socket.socket] | None:
    """Start a server for what this process starts as Python. Returns None here; in its forks, as `serve`.

    asker: it is told how this process ended, by no other.
    """
    path = Path(os.environ[FOLDER], str(os.getpid()))
    os.environ[SOCKET] = str(path)
    sys.executable = str(path.with_name("python"))
    path.unlink(missing_ok=True)  # of an earlier process of this number
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        if os.fork():
            return None
        asker.close()
        return serve(listener)


def run(arguments: list[str]) -> None:
    """Run what stands on the command line after `python`."""
    while arguments[0] in ("-u", "-P", "-W", "ignore"):
        sys.stdout.reconfigure(write_through=True)
        arguments = arguments[1:]
    sys.path[:0] = os.environ.get("PYTHONPATH", "").split(":")
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.modules.pop(sys.argv[0], None)
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":  # by xdist; tests start real Pythons, but where they ask for a fork
        sys.executable = EXECUTABLE
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(arguments[1], vars(sys.modules["__main__"]))
    else:
        if arguments[0].endswith("setup_worker.py"):
            from ray._private.runtime_env.context import RuntimeEnvContext

            RuntimeEnvContext.exec_worker = _go_on  # type: ignore[method-assign]
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def _go_on(context: RuntimeEnvContext, arguments: list[str], language: Any) -> None:
    """Go on in this process, where Ray starts another Python."""
    os.environ.update(context.env_vars)
    run(arguments)


def run_to_the_end(arguments: list[str], asker: socket.socket) -> NoReturn:
    """Run it, and end as an interpreter does, except that nothing is torn down: that takes half a second."""
    code: Any = None
    try:
        run(arguments)
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with contextlib.suppress(OSError):  # it waits for no code, but for the process
        fcntl.fcntl(asker, fcntl.F_SETFL, 0)
        asker.sendall(str(code or 0).encode())
    os._exit(code or 0)


def main(number: int) -> None:
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page
    asked = serve(socket.socket(fileno=number))
    while below := serve_below(asked[1]):  # this is a fork of that server, and gets one below it too
        asked = below
    run_to_the_end(*asked)


if __name__ == "__main__":
    main(int(sys.argv[1]))
