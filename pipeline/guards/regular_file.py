"""In: a path that somebody gives. Out: what the file holds, in a bounded number of bytes.

A pipe would be waited for, and a device has no end: they are refused, whatever they are called.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def read_regular(path: str | Path, count: int) -> bytes:
    """Return the first `count` bytes. Raises OSError, also for what is not a file."""
    with open(path, "rb", opener=_open) as file:
        return file.read(count)


def check_regular(path: str | Path) -> None:
    """Raise OSError for what exists and is not a file; for whoever leaves reading to a library."""
    _check(os.stat(path).st_mode, path)


def _open(path: str, flags: int) -> int:
    place = os.open(path, flags | os.O_NONBLOCK)
    try:
        _check(os.fstat(place).st_mode, path)
    except BaseException:
        os.close(place)
        raise
    return place


def _check(mode: int, path: str | Path) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "of another kind")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
