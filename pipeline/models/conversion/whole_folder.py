"""A new folder that is there whole or not at all, whoever else writes to that name and whatever is killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from framefleet.pipeline.errors import ModelError

_GB = 1e9


@contextmanager
def whole_folder(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Yield the folder to write this many bytes into; when the block ends it takes its name next to it.

    Raises ModelError when the name is taken, another process is at it, or the disk has no room.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        with _locked(folder):
            check_new(folder)
            shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
            try:
                _check_room(folder, size_bytes)
                yield partial
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise ModelError(
            f"{folder} cannot be written: {error}", "free space, or name another folder"
        ) from error


def check_new(folder: Path) -> None:
    """Raise ModelError when there is something of that name."""
    if folder.exists():
        raise ModelError(f"{folder} is there already", "name a folder that is not")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the name. The operating system lets go of it when its holder dies."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ModelError(
            f"{folder} is being written by another process", "wait for it, or name another folder"
        ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who makes a new one finds the folder written
        lock.release()


def _check_room(folder: Path, size_bytes: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < size_bytes:
        raise ModelError(
            f"{folder} will take {size_bytes / _GB:.1f} GB, and {folder.parent.resolve()} has "
            f"{free / _GB:.1f} GB free",
            "free space, name a folder on another disk, or ask for smaller weights: --dtype bf16",
        )
