"""Decode hostile files in separate processes: a crash ends only that process, and its memory is bounded.

C libraries (Arrow, FFmpeg, Pillow's decoders) read files of strangers. Nobody can check in advance what such
a file does to the process, or how much memory it takes.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from framefleet.pipeline.guards.own_python import module_path, python

_LEAVING_S = 10.0  # from the end of its connection to that of the process
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # each thread reserves memory, which is bounded
_THREADS = ("GOTO_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # OpenBLAS prefers these


class Ended(Exception):
    """A sandbox has ended; the text says why, as the end of "it cannot be read: ..."."""


class Sandbox:
    """A process that runs a module which calls `serve`; it receives and sends messages of bytes.

    max_silence_s: how long to wait for its next message. work: what the process did, for errors.
    """

    def __init__(self, module: str, *, max_silence_s: float, work: str = "read it") -> None:
        self._max_silence_s, self._work = max_silence_s, work
        ours, theirs = socket.socketpair()
        environment = {name: value for name, value in os.environ.items() if name not in _THREADS}
        with theirs:
            self._process = subprocess.Popen(
                python("-m", module),
                env={**environment, **_ONE_THREAD, "PYTHONPATH": module_path()},
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # a library's last words
            )
        self._connection = Connection(ours.detach())

    def send(self, message: bytes | memoryview) -> None:
        try:
            self._connection.send_bytes(message)
        except OSError:
            raise Ended(self._last_words()) from None

    def receive(self) -> bytes:
        """Return its next message. Raises Ended, also if none comes in time."""
        try:
            if self._connection.poll(self._max_silence_s):
                return self._connection.recv_bytes()
        except (EOFError, OSError):
            raise Ended(self._last_words()) from None
        raise Ended(f"it takes more than {self._max_silence_s:.0f} s")

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _last_words(self) -> str:
        try:
            code = self._process.wait(_LEAVING_S)
        except subprocess.TimeoutExpired:
            return f"the process that {self._work} went silent"
        if code == -signal.SIGKILL:
            return f"the process that {self._work} was killed, maybe because memory ran out"
        return f"the process that {self._work} crashed ({ending(code)})"


class Sandboxes:
    """Sandboxes of one module, kept for the next use. Threads may share it."""

    def __init__(self, module: str, *, max_silence_s: float, work: str = "read it") -> None:
        self._open = partial(Sandbox, module, max_silence_s=max_silence_s, work=work)
        self._idle: list[Sandbox] = []
        os.register_at_fork(after_in_child=self._idle.clear)  # they belong to the parent

    @contextlib.contextmanager
    def one(self) -> Iterator[Sandbox]:
        """Yield a sandbox; it is kept unless the block raises, also GeneratorExit."""
        box = self._idle_one() or self._open()
        try:
            yield box
        except BaseException:
            box.end()
            raise
        self._idle.append(box)

    def close(self) -> None:
        while box := self._idle_one():
            box.end()

    def _idle_one(self) -> Sandbox | None:
        """Take an idle sandbox. Those that were killed while idle are removed: no file is to blame."""
        with contextlib.suppress(IndexError):  # the list is empty; other threads may take from it too
            while (box := self._idle.pop()).has_ended:
                box.end()
            return box
        return None


def ending(code: int) -> str:
    """Return how a process ended, by its return code in `subprocess`: e.g. "SIGILL" or "exit code 1"."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def serve(answer: Callable[[Connection], None]) -> None:
    """Run in a sandbox: call `answer` for each request, until the other side has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for our parent; we end when it ends
    connection = Connection(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # so that nothing else reads the messages
    with contextlib.suppress(EOFError, OSError):
        while True:
            answer(connection)


def bound_memory(more_bytes: int) -> None:
    """Let this process take at most this much more memory. Does nothing if the system cannot bound it."""
    with contextlib.suppress(OSError, ValueError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = used + more_bytes
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
