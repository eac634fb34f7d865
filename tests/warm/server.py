"""The fork server of workers (`cluster/fleet/warm/`), with what tests import as well, and forks of forks.

What a fork starts as another Python, as Ray does by `sys.executable`, is a fork too, of a server of its own:
so it stands below it in the tree of processes, and goes with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framefleet.cluster.fleet.warm.server import (
    Asked,
    execute,
    import_and_fork,
    read_on_import,
    run,
    serve_forks,
)
from tools.chaos.namespaces import HOST, enter

if TYPE_CHECKING:
    from ray._private.runtime_env.context import RuntimeEnvContext

PR_SET_PDEATHSIG = 1
# In the environment of forks: where servers have their sockets, and which one is theirs.
FOLDER, SOCKET = "WARM_FOLDER", "WARM_SOCKET"
EXECUTABLE = sys.executable
# What drivers and processes that run tests import.
MODULES = (
    "framefleet.jobs.cli",
    "framefleet.jobs.render.claim",
    "framefleet.jobs.show.progress",
    "framefleet.plugins.train.resolve",
    "framefleet.plugins.train.resolve",
    "tests.tiny",
)


def serve_below(asker: socket.socket) -> tuple[Asked, socket.socket] | None:
    """Start a server for what this process starts as Python. Returns None here; in forks, as `serve_forks`.

    asker: it is told how this process ended, by no other.
    """
    path = Path(os.environ[FOLDER], str(os.getpid()))
    os.environ[SOCKET] = str(path)
    sys.executable = str(path.with_name("python"))
    path.unlink(missing_ok=True)  # of an earlier process of this number
    seen = read_on_import(os.environ)  # as this process was asked for, and so as libraries were imported
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        if os.fork():
            return None
        asker.close()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        return serve_forks(listener, seen)


def settle(asked: Asked) -> None:
    """Have a fork be where it belongs, and go on in one process where Ray would start another Python."""
    if host := asked.environment.get(HOST):
        enter(int(host), "uts", "net", "mnt")
        os.chdir(asked.folder)
    if any(argument.endswith("setup_worker.py") for argument in asked.arguments):
        from ray._private.runtime_env.context import RuntimeEnvContext

        RuntimeEnvContext.exec_worker = _go_on  # type: ignore[method-assign]


def _go_on(context: RuntimeEnvContext, arguments: list[str], language: Any) -> None:
    os.environ.update(context.env_vars)
    execute(arguments)


def main() -> None:
    asked, asker = import_and_fork(*MODULES)
    settle(asked)
    while below := serve_below(asker):  # this is a fork of that server, and gets one below it too
        asked, asker = below
        settle(asked)
    if "-c" in asked.arguments:  # by xdist; tests start real Pythons, but where they ask for a fork
        sys.executable = EXECUTABLE
    run(asked, asker)


if __name__ == "__main__":
    main()
