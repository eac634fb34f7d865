"""Read a bounded number of bytes from a path that may come from a stranger.

Reading a pipe would wait, and a device has no end: both are refused, whatever their name is.
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
    """Return the first `count` bytes. Raises OSError, also if it is not a file."""
    with open(path, "rb", opener=_open) as file:
        return file.read(count)


def check_regular(path: str | Path) -> None:
    """Raise OSError if it is not a file; for callers that let a library read it."""
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
