"""Folders for sockets: only their owner can enter them, their paths are short, and there is room in them.

The path of a socket has at most 103 bytes on a Mac and 107 on Linux, and TMPDIR is often longer, e.g. in jobs
of Slurm. Whoever makes a socket takes its folder from here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from framefleet.pipeline.errors import FleetError

MAX_FOLDER = 35  # bytes of its path: Ray's names below its folder take 68
_NAME = "/framefleet-12345678"
# Ray's logs, which it writes from the start: with less its processes die, and nothing says why.
LEAST_BYTES = 16 << 20


def make_socket_folder() -> Path:
    """Return a new folder in TMPDIR, or in /tmp where that path is too long. Raises FleetError."""
    check_parent()
    parent = _parent()
    try:
        return Path(tempfile.mkdtemp(prefix="framefleet-", dir=parent))
    except OSError as error:
        raise _unusable(f"no folder can be made in {parent}: {error.strerror}") from error


def _parent() -> str:
    parent = tempfile.gettempdir()
    return parent if len(os.fsencode(parent + _NAME)) <= MAX_FOLDER else "/tmp"


def check_parent() -> None:
    """Raise FleetError where no such folder can be made, or the place for it is nearly full."""
    parent = _parent()
    try:
        free = shutil.disk_usage(parent).free
    except OSError as error:
        raise _unusable(f"{parent} cannot be used: {error.strerror}") from error
    if free < LEAST_BYTES:
        raise _unusable(f"{parent} has {free // 1024:,} KiB free, and needs {LEAST_BYTES // 1024:,} KiB")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise _unusable(f"{parent} cannot be written")


def _unusable(problem: str) -> FleetError:
    most = MAX_FOLDER - len(_NAME)
    return FleetError(
        f"{problem}, where Ray keeps its sockets and logs",
        f"make room there, or set TMPDIR to another folder whose path has at most {most} characters",
    )
