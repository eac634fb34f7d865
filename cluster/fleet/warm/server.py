"""A process that has imported torch, diffusers and all of a worker, and forks whenever a Python is asked for.

Run as a program whose standard input is a socket. That sends the socket to listen on, and names of pipelines
to import as well; when it closes, the server ends. A fork continues as the Python that was asked for, with
its arguments, environment, folder and streams. The server never forks while other threads run, or if a
library saw other variables than it would see now.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter

from framefleet.pipeline.errors import FramefleetError
from framefleet.pipeline.outputs.stores.store import read_as

# Variables that libraries read while they are imported.
READ_ON_IMPORT = (
    *("CUDA_", "DIFFUSERS_", "HF_", "HUGGINGFACE_", "KMP_", "MKL_"),
    *("OMP_", "OPENBLAS_", "PYTORCH_", "TORCH", "TRANSFORMERS_"),
)

# Exceptions: what is read when it is used, what torch itself sets sooner or later, and what only decides what
# libraries print.
BEAR_CHANGES = ("HF_TOKEN", "TORCHINDUCTOR_CACHE_DIR", "DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY")

_OPTIONS = ("-u", "-P")  # of Python, which a fork has or can do without

BEAR_FORKS = ("jemalloc_bg_thd",)  # Arrow's: jemalloc ends and begins it around a fork (pthread_atfork)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The Python that a process asks for."""

    arguments: list[str]  # of its command line
    environment: dict[str, str]
    folder: str
    parent: int | None = None  # an ancestor of this process, which adopts the fork; None: it has a relay


_ASKED = TypeAdapter(Asked)


def import_all() -> None:
    """Import what every worker does. Not Ray, whose workers crash if it was imported before the fork."""
    import diffusers  # noqa: F401

    import framefleet.cluster.worker.worker
    import framefleet.pipeline.model.load
    import framefleet.pipeline.render.renderer  # noqa: F401


def serve_forks(
    listener: socket.socket, seen: Mapping[str, str], driver: socket.socket | None = None
) -> tuple[Asked, socket.socket]:
    """Fork for each request. Returns only in forks: the Python that was asked for, and who asked.

    seen: the variables that libraries were imported under. driver: names pipelines; the server ends with it.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks that ended leave nothing
    while True:
        ready, _, _ = select.select([*filter(None, [driver]), listener], [], [])
        if driver in ready:
            if not (names := driver.recv(4096)):
                os._exit(0)
            for name in names.decode().split():
                _import_pipeline(name)
            continue
        asker, _ = listener.accept()
        _, streams, *_ = socket.recv_fds(asker, 1, 3)
        with asker.makefile() as text:
            request = read_as(_ASKED, text.read(), "what a process asks for")
        is_warm = read_on_import(request.environment) == seen and is_alone()
        if is_warm and _fork(request.parent):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for ours in filter(None, [listener, driver]):
                ours.close()
            _become(request, asker, streams)
            return request, asker
        if not is_warm:
            asker.sendall(b"c")
        for descriptor in (*streams, asker.detach()):
            os.close(descriptor)


def _fork(parent: int | None) -> bool:
    if os.fork():
        return False
    if parent is not None:
        if os.fork():  # ends at once, so that its fork is an orphan, which `parent` adopts
            os._exit(0)
        while os.getppid() != parent:
            time.sleep(0.001)
    return True


def _import_pipeline(name: str) -> None:
    """Import a pipeline's class and what it needs. If that fails, a worker reports it."""
    from framefleet.pipeline.model.specs.pipeline_call import pipeline_named

    with contextlib.suppress(FramefleetError, ImportError):
        _ = pipeline_named(name)  # whose module stays
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page


def read_on_import(environment: Mapping[str, str]) -> dict[str, str]:
    names = (name for name in environment if name.startswith(READ_ON_IMPORT) and name not in BEAR_CHANGES)
    return {name: environment[name] for name in names}


def is_alone() -> bool:
    """Return whether a fork would lose no thread: some libraries start theirs when they are imported."""
    names = {
        int(task.name): (task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()
    }
    return all(number == os.getpid() or name in BEAR_FORKS for number, name in names.items())


def _become(asked: Asked, asker: socket.socket, streams: list[int]) -> None:
    """Take over what a process has from its start."""
    # When a worker ends, Ray kills its process group (`SchedulePostExitProcessGroupCleanup`): not the others.
    os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(asked.folder)
    os.environ.clear()
    os.environ.update(asked.environment)
    tempfile.tempdir = None  # it may have been looked for in another environment
    gc.enable()
    if asked.parent is None:
        asker.sendall(b"f")
        _end_with(asker)
    else:
        asker.sendall(str(os.getpid()).encode())
    renew_thread_pool()


def _end_with(relay: socket.socket) -> None:
    """Let this process be killed when its relay is: then the relay's end of this socket closes."""
    fcntl.fcntl(relay, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(relay, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(relay, fcntl.F_SETFL, os.O_ASYNC)
    gone = select.poll()
    gone.register(relay, select.POLLHUP)
    if any(event & select.POLLHUP for _, event in gone.poll(0)):  # before it was listened for
        os._exit(1)


def renew_thread_pool() -> None:
    """Make torch replace the thread pool that a fork lost, before two threads do so at once.

    That would be a race: "Invalid thread pool!" (https://github.com/pytorch/pytorch/pull/54895).
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(torch.get_num_threads())


def execute(arguments: list[str]) -> None:
    """Run what follows `python` on a command line."""
    while arguments[0] in _OPTIONS:
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        arguments = arguments[1:]
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(":"))
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.modules.pop(sys.argv[0], None)
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(arguments[1], vars(sys.modules["__main__"]))
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def run(asked: Asked, asker: socket.socket) -> NoReturn:
    """Run a Python to its end, as an interpreter would, but tear nothing down; send its exit code."""
    code: Any = None
    try:
        execute(asked.arguments)
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
    with contextlib.suppress(OSError):  # a process that adopted the fork does not wait for the code
        fcntl.fcntl(asker, fcntl.F_SETFL, 0)
        asker.sendall(str(code or 0).encode())
    os._exit(code or 0)


def import_and_fork(*modules: str) -> tuple[Asked, socket.socket]:
    """Import all of a worker, and these modules; then serve forks to the process that started this one."""
    seen = read_on_import(os.environ)  # now: libraries set some themselves
    gc.disable()  # nearly all that imports make stays: to look through it meanwhile takes a fifth of the time
    import_all()
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    driver = socket.socket(fileno=os.dup(0))
    _, descriptors, *_ = socket.recv_fds(driver, 1, 1)
    return serve_forks(socket.socket(fileno=descriptors[0]), seen, driver)


if __name__ == "__main__":
    run(*import_and_fork())
