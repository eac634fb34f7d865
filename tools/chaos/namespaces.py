"""Into the namespaces of another process, for this thread and what it starts. Python 3.12 has os.setns."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

HOST = "CHAOS_HOST"  # in the environment of a process that belongs into one: the process that stands for it


def enter(pid: int, *kinds: str) -> None:
    """Go where `pid` is, in these respects: net, uts, mnt."""
    for kind in kinds:
        _set(f"/proc/{pid}/ns/{kind}")


@contextmanager
def inside(pid: int) -> Iterator[None]:
    """Make sockets in the network of `pid`, until the block ends."""
    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    enter(pid, "net")
    try:
        yield
    finally:
        _set(f"/proc/thread-self/fd/{ours}")
        os.close(ours)


def _set(path: str) -> None:
    namespace = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(namespace, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    finally:
        os.close(namespace)
