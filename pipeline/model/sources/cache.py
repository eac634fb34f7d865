"""The folder of this machine where fetched models are kept, and the lock that lets one process fetch them."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from framefleet.pipeline.errors import ModelError

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return $FRAMEFLEET_CACHE, or else framefleet below the user's cache folder."""
    chosen = os.environ.get("FRAMEFLEET_CACHE")
    if chosen:
        return Path(os.path.expanduser(chosen))
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "framefleet"


@contextmanager
def one_fetcher(name: str) -> Iterator[None]:
    """Hold the lock of model `name` among the processes of this machine; the others wait until it is fetched.

    The operating system lets go of it when its holder dies.
    """
    path = cache_folder() / "locks" / f"{short_hash(name)}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another process is busy with %s; waiting for it", name)
            lock.acquire()
    except OSError as error:
        raise ModelError(
            f"the cache folder {cache_folder()} cannot be written: {error.strerror}",
            "set FRAMEFLEET_CACHE to a folder with room for the model",
        ) from error
    try:
        yield
    finally:
        lock.release()


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
