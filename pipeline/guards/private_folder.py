"""In: a folder. Out: the place through which other users of this machine can change what is in it, if any."""

from __future__ import annotations

import os
import stat
from pathlib import Path

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
