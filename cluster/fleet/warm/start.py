"""In: whether workers may be forks here. Out: the command with which Ray starts their Python, warm.

Without a GPU, torch and diffusers are imported once, while everything else starts. CUDA does not survive a
fork, so with a GPU nothing changes.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from framefleet.cluster.fleet.ray_folder import make_socket_folder
from framefleet.cluster.fleet.settings import FleetSettings
from framefleet.pipeline.guards.own_python import HOME, python

RELAY = Path(__file__).with_name("relay.py")
# Files of the drivers of NVIDIA (also under WSL) and AMD.
_GPUS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


@dataclass(frozen=True, slots=True)
class Warm:
    """Where workers come from. place: the path of its server's socket."""

    place: Path
    _server: socket.socket

    @property
    def py_executable(self) -> str:
        """The value of this name for Ray's `runtime_env`."""
        return " ".join(map(shlex.quote, (sys.executable, "-IS", str(RELAY), str(self.place))))

    def prepare(self, pipeline: str) -> None:
        with contextlib.suppress(OSError):  # it has died: workers start cold
            self._server.sendall(f"{pipeline}\n".encode())


_ahead: dict[int, Warm] = {}  # by threads


def may_fork(fleet: FleetSettings, *, device: str) -> bool:
    """Return whether workers run on this machine, on Linux, and use no GPU."""
    is_here = fleet.address is None and sys.platform == "linux"
    return is_here and (device == "cpu" or not any(map(os.path.exists, _GPUS)))


def environment_of_imports(*, threads: int) -> dict[str, str]:
    """Return the environment of a process that imports what workers need. threads: as in `warm`."""
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), HOME])
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}


@contextmanager
def warm(*, threads: int, server: str = f"{__package__}.server") -> Iterator[Warm]:
    """Yield future workers: a process that imports what they need, and ends with the context.

    threads: of torch in each worker, as libraries read that on import. server: the module that it runs.
    """
    if threads in _ahead:
        yield _ahead[threads]
        return
    folder = make_socket_folder()
    place = folder / "socket"
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        with theirs, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
            listener.listen()
            socket.send_fds(ours, [b"."], [listener.fileno()])
            process = subprocess.Popen(
                python("-m", server),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # a worker that starts cold says what is wrong
                start_new_session=True,  # Ctrl-C in a terminal is the driver's to follow
                env=environment_of_imports(threads=threads),
            )
        stack.callback(process.wait)
        stack.callback(process.kill)
        yield Warm(place, ours)


@contextmanager
def warm_ahead(*, threads: int) -> Iterator[None]:
    """Begin early what `warm` would begin in the block, which has much to import before it can call it."""
    with warm(threads=threads) as _ahead[threads]:
        try:
            yield
        finally:
            del _ahead[threads]
