"""This machine's cache folder: its locks, and cached facts about classes that take seconds to import."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import logging
import os
import platform
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.json_text import canonical_json, parse_json
from framefleet.pipeline.guards.sandbox import Ended
from framefleet.pipeline.model.environment import source_fingerprint
from framefleet.pipeline.model.library_process import LIBRARY_PROCESS

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return $FRAMEFLEET_CACHE, or else framefleet below the user's cache folder."""
    if chosen := os.environ.get("FRAMEFLEET_CACHE"):
        return Path(os.path.expanduser(chosen))  # pathlib's expanduser raises for a user without a home
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "framefleet"


_SAID_AFTER_S, _SAID_EVERY_S = 5.0, 60.0
_MAX_WAIT_S = 600.0  # few files take longer to fetch


@contextmanager
def one_fetcher(name: str, *, max_wait_s: float = _MAX_WAIT_S) -> Iterator[None]:
    """Hold this machine's lock for `name`, or continue without it after `max_wait_s`.

    It may therefore happen that two processes do the same work, which is safe: files are written as a whole.
    The system releases the lock when its holder dies, but in a folder for all users, anybody may hold it for
    ever.
    """
    path = cache_folder() / "locks" / f"{short_hash(name)}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock, left_s, pause_s = FileLock(path), max_wait_s, min(_SAID_AFTER_S, max_wait_s)
        while left_s > 0:
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=pause_s)
                break
            left_s, pause_s = left_s - pause_s, min(_SAID_EVERY_S, left_s - pause_s)
            message = "%s is busy with %s and holds the lock %s; continuing without it in %.0f s"
            log.warning(message, _holder(path), name, path, left_s)
    except OSError as error:
        problem = f"the cache folder {cache_folder()} cannot be written: {error.strerror}"
        raise ModelError(problem, "set FRAMEFLEET_CACHE to a folder with space for the model") from error
    try:
        yield
    finally:
        lock.release()


def _holder(lock: Path) -> str:
    """Return the process that holds a lock, from Linux's list: "process 123 of user 1000"."""
    with contextlib.suppress(OSError):
        locks = Path("/proc/locks").read_text()
        if match := re.search(rf"FLOCK +\w+ +\w+ +([1-9]\d*) \S+:{lock.stat().st_ino} ", locks):
            return f"process {match[1]} of user {os.stat(f'/proc/{match[1]}').st_uid}"
    return "another process"


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


Cached = TypeVar("Cached")
_MAX_BYTES = 1 << 20  # the longest signature takes 20 KB


def disk_cached(
    kind: TypeAdapter[Cached],
    *,
    decided_by: Callable[..., list[Any] | None] = lambda *values: [*values],
    is_kept: Callable[[Cached], bool] = lambda answer: True,
    asks_libraries: bool = False,
) -> Callable[[Callable[..., Cached]], Callable[..., Cached]]:
    """Cache on disk what a function returns, if `is_kept` says so. What it raises is not cached.

    decided_by: from its arguments to the plain values that decide the answer, or None to cache nothing. A
    table must not be able to add any number of entries. asks_libraries: the function imports diffusers; it
    runs in `LIBRARY_PROCESS` while that is in use, unless this process has already imported them.
    """

    def decorated(function: Callable[..., Cached]) -> Callable[..., Cached]:
        name = f"{function.__module__}.{function.__qualname__}"

        def in_json(*arguments: Any) -> Any:
            return kind.dump_python(function(*arguments), mode="json")

        in_json.__module__, in_json.__qualname__ = function.__module__, f"{function.__qualname__}.in_json"

        def made(*arguments: Any) -> Any:
            if asks_libraries and LIBRARY_PROCESS.is_in_use and "diffusers" not in sys.modules:
                with contextlib.suppress(Ended):  # calling it here shows why
                    return LIBRARY_PROCESS.ask(in_json, *arguments)
            return in_json(*arguments)

        @functools.wraps(function)
        def answer(*arguments: Any) -> Cached:
            try:
                deciding = decided_by(*arguments)
                question = canonical_json([name, deciding, _installed()]).encode()
            except (TypeError, ValueError, RecursionError):  # configs may have values that are not plain
                deciding = None
            if deciding is None:
                return function(*arguments)
            file = cache_folder() / "classes" / f"{hashlib.sha256(question).hexdigest()}.json"
            try:
                return kind.validate_python(parse_json(_read(file)))
            except (OSError, ValueError) as error:
                log.debug("%s is made again: %s", file, error)
            written = made(*arguments)
            validated = kind.validate_python(written)  # the same as from the file
            if is_kept(validated):
                _write(file, written)
            return validated

        answer.in_json = in_json  # type: ignore[attr-defined]
        return answer

    return decorated


def _read(file: Path) -> bytes:
    """Return the file's content. Raises OSError, or ValueError for another user's file."""
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:  # does not wait for a pipe
        status = os.fstat(opened.fileno())
        if status.st_uid != os.getuid() or not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a file of this user")
        return opened.read(_MAX_BYTES)


def _write(file: Path, content: Any) -> None:
    """Write the file completely or not at all; without it, the next process asks the classes again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            part = Path(folder, file.name)
            part.touch(0o600)  # only for this user, because `_read` trusts the owner
            part.write_text(json.dumps(content), encoding="utf-8")
            part.replace(file)
    except OSError as error:
        log.debug("%s cannot be written: %s", file, error)


@functools.cache
def _installed() -> str:
    """Return a digest of everything that decides the answers: Python, our source, diffusers, other packages.

    Files of diffusers count by size and time, so that edits in place are noticed.
    """
    places = [place for place in sys.path if os.path.isdir(place)]
    packages = {name for place in places for name in os.listdir(place)}  # with their versions
    facts = [platform.python_version(), source_fingerprint()]
    facts += sorted(name for name in packages if name.endswith((".dist-info", ".egg-info")))
    spec = importlib.util.find_spec("diffusers")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for path in sorted(Path(folder).rglob("*.py")):
            status = path.stat()
            facts.append(f"{path} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()
