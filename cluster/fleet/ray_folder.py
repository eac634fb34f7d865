"""Whether other users of this machine can write Ray's folder, from which workers take the modules they run.

Ray opens what it makes there to everybody, so only a folder above it can keep others out. A token does not.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import tempfile
from pathlib import Path

PRIVATE = "start Ray below a folder of your own: mkdir -m 700 /tmp/my-ray; export RAY_TMPDIR=/tmp/my-ray"

log = logging.getLogger(__name__)


def ray_folder_problem() -> str | None:
    """Return who can write Ray's folder on this machine; None if only we and root can.

    It is that of the Ray that this process has joined, or else of one that it would start.
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
    return f"other users of this machine can write {place}, and so have Ray's workers run their code"


def warn_of_open_folder() -> None:
    if problem := ray_folder_problem():
        log.warning("%s: %s", problem, PRIVATE)


_ENTERS, _WRITES = 0o011, 0o022  # of the group and of all others; a group has other people in it


def open_place(folder: str | Path) -> Path | None:
    """Return the folder, or the one above it, that other users can write; None where only we and root can.

    A link is followed, and looked at too: whoever owns it can lead it elsewhere.
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
        # In a sticky folder, as /tmp is, everybody can make files, but only their owner can replace them.
        if status.st_mode & _WRITES and (place == folder or not status.st_mode & stat.S_ISVTX):
            return place
    return None
