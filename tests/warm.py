"""A Ray cluster whose workers are forks of one process that has torch and diffusers already.

Importing them takes five to ten seconds of a core, for each worker of each job. Run as a program: it prints
the address of its cluster, and ends with its standard input. What Ray takes for its Python there is a script
that asks the process with everything imported to fork, and ends as the fork ends. All else is Ray's.

Not for tests of what a worker reads from its environment while it imports, nor for those that find workers
by their parents.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Everything that a worker imports for a tiny Wan, which is most of what it imports for any.
from diffusers import WanPipeline  # noqa: F401

import framefleet.cluster.worker  # noqa: F401

if TYPE_CHECKING:
    from ray._private.runtime_env.context import RuntimeEnvContext

SCRIPT = "setup_worker.py"  # what Ray's Python is asked to run, if it is to be a worker
PYTHON = """#!{python} -IS
import array, json, os, socket, sys
arguments = sys.argv[1:]
if not any(argument.endswith("{script}") for argument in arguments):
    os.execv("{python}", ["{python}", *arguments])
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect("{place}")
    asked.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    asked.sendall(json.dumps([arguments, dict(os.environ), os.getcwd()]).encode())
    asked.shutdown(socket.SHUT_WR)
    asked.recv(1)  # closed as the worker ends
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="warm-") as folder, socket.socket(socket.AF_UNIX) as listener:
        place, python = Path(folder, "socket"), Path(folder, "python")
        python.write_text(PYTHON.format(python=sys.executable, script=SCRIPT, place=place))
        python.chmod(0o700)
        listener.bind(str(place))
        listener.listen()
        if (server := os.fork()) == 0:
            _serve(listener)
        try:
            _run_cluster(python)
        finally:
            os.kill(server, signal.SIGKILL)


def _run_cluster(python: Path) -> None:
    import ray  # not before the fork: Ray reads its environment once, and a worker has its own

    sys.executable = str(python)
    cluster: Any = ray.init("local", num_cpus=3, include_dashboard=False, object_store_memory=2**27)
    print("at", cluster.address_info["address"], flush=True)
    sys.stdin.read()
    ray.shutdown()


def _serve(listener: socket.socket) -> None:
    """Fork for everyone who asks. Never returns."""
    assert len(os.listdir("/proc/self/task")) == 1  # other threads would not be in a fork, but their locks
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks that ended leave nothing
    while True:
        asked, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _become_worker(asked)
        asked.close()


def _become_worker(asked: socket.socket) -> None:
    """Be what Ray's Python would have been. Never returns."""
    _, descriptors, *_ = socket.recv_fds(asked, 1, 3)
    arguments, environment, folder = json.loads(b"".join(iter(lambda: asked.recv(65536), b"")))
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)

    from ray._private.runtime_env.context import RuntimeEnvContext

    RuntimeEnvContext.exec_worker = _go_on  # type: ignore[method-assign]
    (script,) = (argument for argument in arguments if argument.endswith(SCRIPT))
    _run(arguments[arguments.index(script) :])
    os._exit(0)


def _go_on(context: RuntimeEnvContext, arguments: list[str], language: Any) -> None:
    """Go on in this process, where Ray starts another Python."""
    os.environ.update(context.env_vars)
    sys.path[:0] = os.environ.get("PYTHONPATH", "").split(":")
    _run(arguments)


def _run(arguments: list[str]) -> None:
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its modules are `tests`'s
    main()
