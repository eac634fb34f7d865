"""In: a folder that is new or empty. Out: the same with everything that belongs into it, or as it was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from framefleet.api.errors import JobError

UNFINISHED = ".framefleet-unfinished"  # a file, until all others are there


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Keep what is written into a folder, unless that fails: half of it would be in the way of the next.

    Raises JobError for a folder with files, but those of a process that was killed here.
    """
    mark, was_there = folder / UNFINISHED, folder.exists()
    if mark.is_file():
        _clear(folder)
    elif was_there and (not folder.is_dir() or any(folder.iterdir())):
        raise JobError(f"{folder} is not an empty folder", "give a new one")
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    try:
        yield
        mark.unlink()
    except BaseException:
        with suppress(OSError):  # what was raised counts
            _clear(folder)
            mark.unlink()
            if not was_there:
                folder.rmdir()
        raise


def _clear(folder: Path) -> None:
    """Delete everything but the mark, without which nobody would know whose the rest is."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != UNFINISHED:
            path.unlink()
