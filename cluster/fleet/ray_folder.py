"""Ray's folder, and folders for sockets: can others write there, are paths short, is there room?

Workers take the modules they run from Ray's folder. Ray opens what it makes there to everybody, so only a
folder above it can keep others out. A token does not. The path of a socket has at most 103 bytes on a Mac and
107 on Linux, and TMPDIR is often longer, e.g. in jobs of Slurm. All code that makes a socket takes its folder
from here.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from framefleet.pipeline.errors import FleetError

PRIVATE = "start Ray below a folder of your own: mkdir -m 700 /tmp/my-ray; export RAY_TMPDIR=/tmp/my-ray"
MAX_FOLDER = 35  # bytes of its path: Ray's names below its folder take 68
_NAME = "/framefleet-12345678"
# For Ray's logs, which it writes from the start: with less, its processes die without a message.
LEAST_BYTES = 16 << 20

log = logging.getLogger(__name__)


def ray_folder_problem() -> str | None:
    """Return a message if others can write Ray's folder on this machine; None if only we and root can.

    It is the folder of the Ray that this process has joined, or of the one that it would start.
    """
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        node = ray._private.worker._global_node
        place = open_place(node.get_runtime_env_dir_path()) if node else None  # none in a client (ray://)
    else:
        with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
            place = open_place(folder)
    if place is None:
        return None
    return f"other users of this machine can write {place}, and so make Ray's workers run their code"


def warn_of_open_folder() -> None:
    if problem := ray_folder_problem():
        log.warning("%s: %s", problem, PRIVATE)


_ENTERS, _WRITES = 0o011, 0o022  # of the group and of all others; a group has other people in it


def open_place(folder: str | Path) -> Path | None:
    """Return the folder, or the one above it, that other users can write; None if only we and root can.

    A link is followed, and checked too: its owner can change where it leads.
    """
    path = Path(os.path.abspath(folder))
    return _open_place(path) or _open_place(path.resolve())


def _open_place(folder: Path) -> Path | None:
    for place in (*reversed(folder.parents), folder):
        status = place.lstat()
        if status.st_uid not in (0, os.geteuid()):
            return place
        if stat.S_ISLNK(status.st_mode):
            continue
        if not status.st_mode & _ENTERS:
            return None
        # In a sticky folder such as /tmp, everybody can make files, but only their owner can replace them.
        if status.st_mode & _WRITES and (place == folder or not status.st_mode & stat.S_ISVTX):
            return place
    return None


def make_socket_folder() -> Path:
    """Return a new folder in TMPDIR, or in /tmp if that path is too long. Raises FleetError."""
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
    """Raise FleetError if no such folder can be made, or the place for it is nearly full."""
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
