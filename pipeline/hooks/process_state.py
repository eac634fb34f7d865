"""Restore the state of the process after each row: umask, folder, limits, and Python's own functions.

A user's recipe may leave it changed, as a script may at its end; here, other rows and their files come next.
Not covered: hard limits, signals, and the state of other libraries.
"""

from __future__ import annotations

import builtins
import io
import logging
import os
import posixpath
import resource
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

log = logging.getLogger(__name__)

_MODULES = (builtins, io, os, posixpath, shutil, time)
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


def _set_limit(limit: int, before: tuple[int, int]) -> None:
    _, hard = resource.getrlimit(limit)  # only root can raise it again
    resource.setrlimit(limit, (before[0] if hard == before[1] else hard, hard))


# (name, getter, setter)
_SETTINGS: list[tuple[str, Callable[[], Any], Callable[[Any], object]]] = [
    ("socket.setdefaulttimeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
    ("sys.setrecursionlimit", sys.getrecursionlimit, sys.setrecursionlimit),
    *(
        ("resource.setrlimit", partial(resource.getrlimit, limit), partial(_set_limit, limit))
        for limit in _LIMITS
    ),
]


class ProcessState:
    """One for all rows of a process. Rows that overlap share the state from before the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_rows = 0
        self._reported: set[str] = set()

    @contextmanager
    def preserved(self) -> Iterator[None]:
        """Restore the state after the block, and log once what a recipe changed."""
        with self._lock:
            if not self._num_rows:
                self._take()
            self._num_rows += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_rows -= 1
                changed = [name for name in self._set_back() if name not in self._reported]
                self._reported.update(changed)
            if changed:
                log.warning("a recipe left %s changed; it was set back for the next rows", ", ".join(changed))

    def _take(self) -> None:
        self._functions = [(module, {**vars(module)}) for module in _MODULES]
        self._settings = [get() for _, get, _ in _SETTINGS]
        self._folder = os.open(".", getattr(os, "O_PATH", os.O_RDONLY))
        self._timer = signal.getitimer(signal.ITIMER_REAL)
        self._umask = os.umask(0o022)  # the usual value, because other threads may be making files
        os.umask(self._umask)

    def _set_back(self) -> list[str]:
        """Restore the state. Returns the names of what was changed."""
        changed = []
        for module, before in self._functions:
            now = vars(module)
            for name, value in before.items():
                if now.get(name) is not value:
                    setattr(module, name, value)
                    changed.append(f"{module.__name__}.{name}")
        for (name, get, put), setting in zip(_SETTINGS, self._settings, strict=True):
            if get() != setting:
                put(setting)
                changed.append(name)
        if os.umask(self._umask) != self._umask:
            changed.append("the umask")
        if self._timer == (0.0, 0.0) and signal.setitimer(signal.ITIMER_REAL, 0) != (0.0, 0.0):
            changed.append("a timer")  # its signal would end the process
        os.fchdir(self._folder)
        if not self._num_rows:
            os.close(self._folder)
        return changed


PROCESS = ProcessState()
