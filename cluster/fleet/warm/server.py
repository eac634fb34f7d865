"""A process that has imported torch, diffusers and all of a worker: relays that ask for a Python get a fork.

Run as a program whose standard input is a socket: from there come the socket that it listens on and names of
pipelines to import as well, and with it it ends. A fork goes on as the Python that was asked for: its
arguments, environment, folder and streams. It never forks while other threads run, or where a library saw
other variables than it would now.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import os
import runpy
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter

from framefleet.pipeline.errors import FramefleetError
from framefleet.pipeline.outputs.stores.json_file import read_as

# Variables that libraries read while they are imported.
READ_ON_IMPORT = (
    "CUDA_",
    "DIFFUSERS_",
    "HF_",
    "HUGGINGFACE_",
    "KMP_",
    "MKL_",
    "OMP_",
    "OPENBLAS_",
    "PYTORCH_",
    "TORCH",
    "TRANSFORMERS_",
)

READ_WHEN_USED = ("TORCHINDUCTOR_CACHE_DIR",)  # torch itself sets it, in one process sooner than in another

BEAR_FORKS = ("jemalloc_bg_thd",)  # Arrow's: jemalloc ends and begins it around a fork (pthread_atfork)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a Python is to be. arguments: a script's path and the script's own."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str


_ASKED = TypeAdapter(Asked)


def import_all() -> None:
    """Import what every worker does. Not Ray, whose workers crash if it was imported before the fork."""
    import diffusers  # noqa: F401

    import framefleet.cluster.worker.worker
    import framefleet.pipeline.model.load
    import framefleet.pipeline.render.renderer  # noqa: F401


def serve_forks(driver: socket.socket, seen: Mapping[str, str]) -> tuple[Asked, socket.socket]:
    """Fork for each relay that asks. Returns in the forks only: what to be, and the relay.

    driver: whose words come over it. seen: the variables that libraries were imported under.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks that ended leave nothing
    _, descriptors, *_ = socket.recv_fds(driver, 1, 1)
    listener = socket.socket(fileno=descriptors[0])
    while True:
        ready, _, _ = select.select([driver, listener], [], [])
        if driver in ready:
            if not (names := driver.recv(4096)):
                os._exit(0)
            for name in names.decode().split():
                _import_pipeline(name)
            continue
        relay, _ = listener.accept()
        asked, streams = _asked(relay)
        is_warm = read_on_import(asked.environment) == seen and is_alone()
        if is_warm and not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            driver.close()
            _become(asked, relay, streams)
            return asked, relay
        if not is_warm:
            relay.sendall(b"c")
        for descriptor in (*streams, relay.detach()):
            os.close(descriptor)


def _asked(relay: socket.socket) -> tuple[Asked, list[int]]:
    _, streams, *_ = socket.recv_fds(relay, 1, 3)
    with relay.makefile() as text:
        return read_as(_ASKED, text.read(), "what a relay asks for"), list(streams)


def _import_pipeline(name: str) -> None:
    """Import a pipeline's class and what it needs; what is wrong with it a worker will say."""
    from framefleet.pipeline.model.specs.pipeline_call import pipeline_named

    with contextlib.suppress(FramefleetError, ImportError):
        _ = pipeline_named(name)  # whose module stays
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page


def read_on_import(environment: Mapping[str, str]) -> dict[str, str]:
    names = (name for name in environment if name.startswith(READ_ON_IMPORT) and name not in READ_WHEN_USED)
    return {name: environment[name] for name in names}


def is_alone() -> bool:
    """Tell whether a fork would lose no thread: some libraries start theirs when they are imported."""
    names = {
        int(task.name): (task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()
    }
    return all(number == os.getpid() or name in BEAR_FORKS for number, name in names.items())


def _become(asked: Asked, relay: socket.socket, streams: list[int]) -> None:
    """Take over what a process has from its start."""
    # When a worker ends, Ray kills its process group (`SchedulePostExitProcessGroupCleanup`): not the others.
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate([null, *streams[1:]]):
        os.dup2(descriptor, number)
    for descriptor in (null, *streams):
        os.close(descriptor)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(asked.folder)
    os.environ.clear()
    os.environ.update(asked.environment)
    gc.enable()
    relay.sendall(b"f")
    # Killed when the relay is: then its end of this socket closes.
    fcntl.fcntl(relay, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(relay, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(relay, fcntl.F_SETFL, os.O_ASYNC)
    gone = select.poll()
    gone.register(relay, select.POLLHUP)
    if any(event & select.POLLHUP for _, event in gone.poll(0)):  # before it was listened for
        os._exit(1)
    renew_thread_pool()


def renew_thread_pool() -> None:
    """Have torch replace the thread pool that a fork lost, before two threads do so at once.

    Theirs is a race: "Invalid thread pool!" (https://github.com/pytorch/pytorch/pull/54895).
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(torch.get_num_threads())


def run(arguments: list[str], relay: socket.socket) -> NoReturn:
    """Run a script as its interpreter would, and tell the relay its exit code."""
    code: Any = None
    while arguments[0].startswith("-"):  # of Python: -u, and nothing else is given by Ray
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        arguments = arguments[1:]
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(":"))
    sys.argv = arguments
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # as an interpreter does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with contextlib.suppress(OSError):
        fcntl.fcntl(relay, fcntl.F_SETFL, 0)
        relay.sendall(str(code if isinstance(code, int) else int(code is not None)).encode())
    os._exit(code if isinstance(code, int) else int(code is not None))


def main() -> None:
    seen = read_on_import(os.environ)  # now: libraries set some themselves
    gc.disable()  # nearly all that imports make stays: to look through it meanwhile takes a fifth of the time
    import_all()
    gc.collect()
    gc.freeze()
    asked, relay = serve_forks(socket.socket(fileno=os.dup(0)), seen)
    run(asked.arguments, relay)


if __name__ == "__main__":
    main()
