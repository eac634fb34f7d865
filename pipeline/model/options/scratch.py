"""Folders of one process, cleared when it has ended: by itself, or by the next one that needs such a folder.

Workers are killed rather than asked to leave, so nothing that runs at an exit can be relied on.
"""

from __future__ import annotations

import atexit
import shutil
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "framefleet-weights-"
LOCK = ".lock"
_held: list[FileLock] = []  # for the life of the process: the system lets go of them when it dies


def own_folder(parent: Path) -> Path:
    """Return a new folder below `parent`. Raises OSError when there can be none."""
    parent.mkdir(parents=True, exist_ok=True)
    clear_abandoned(parent)
    folder = parent / f"{PREFIX}{uuid.uuid4().hex}"
    lock = FileLock(f"{folder}{LOCK}")
    lock.acquire(timeout=0)  # before the folder is there for others to see
    _held.append(lock)
    folder.mkdir()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def clear_abandoned(parent: Path) -> None:
    """Remove the folders of processes that have ended. Only what has a lock next to it was made here."""
    for path in parent.glob(f"{PREFIX}*{LOCK}"):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        path.unlink(missing_ok=True)
        lock.release()
