"""In: bytes and a path below an fsspec URL. Out: an object that is all there or not there.

An object is stored by one `pipe_file`, never by `open(..., "wb")`: leaving that block by an exception
publishes what was written so far. `create` is atomic where the store has conditional writes (S3, Google Cloud
Storage); elsewhere it looks first and then writes.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from botocore.exceptions import BotoCoreError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random_exponential

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.public import public_text, public_url

# Rides out 15 s without the server (botocore's own default gives up after about 10 s).
S3_RETRIES = {"mode": "standard", "max_attempts": 10}
S3_RETRIES_IN_ENVIRONMENT = {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"}

# What s3fs makes of "busy", "internal error" and "slow down", and networks of a lost peer.
TRANSIENT_ERRNOS = {errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO), errno.ETIMEDOUT, errno.EAGAIN}
TRANSIENT_CODES = {"ConditionalRequestConflict", "OperationAborted", "SlowDown", "ServiceUnavailable"}

NUM_DELETES = 8  # at once: each is answered in tens of milliseconds


def _error_code(error: BaseException) -> str:
    """Return what the S3 server called this error; s3fs keeps it in the cause only."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def is_transient(error: BaseException) -> bool:
    """Tell whether the same request may succeed a moment later."""
    if isinstance(error, BotoCoreError):  # not an OSError; the rest of its kinds are wrong settings
        return isinstance(error, BotoConnectionError | HTTPClientError)
    if isinstance(error, ConnectionError | TimeoutError) or _error_code(error) in TRANSIENT_CODES:
        return True
    return isinstance(error, OSError) and error.errno in TRANSIENT_ERRNOS


# Below s3fs's and botocore's own retries: after 20 s of those nothing is gained by going on.
_patiently = retry(
    retry=retry_if_exception(is_transient),
    stop=stop_after_delay(20),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    reraise=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a store says about one of its files. stamp: another one after every change, as an ETag."""

    size: int
    stamp: str


class ObjectStore:
    """Objects below `url`. Raises what fsspec and the store's own library raise: anything."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url, self.options = url, options
        self._opened: tuple[int, Any, str] | None = None  # process id, file system, root

    def read(self, path: str, count: int | None = None) -> bytes:
        files, place = self._at(path)
        try:
            content: bytes = (
                files.cat_file(place) if count is None else files.cat_file(place, start=0, end=count)
            )
        except OSError as error:
            if _error_code(error) != "InvalidRange":
                raise
            return b""  # an empty object has no first byte
        return content

    @_patiently
    def download(self, path: str, target: Path) -> None:
        files, place = self._at(path)
        files.get_file(place, str(target))

    @_patiently
    def write(self, path: str, content: bytes) -> None:
        files, place = self._at(path)
        files.pipe_file(place, content)

    @_patiently
    def upload(self, path: str, source: Path) -> None:
        files, place = self._at(path)
        files.put_file(str(source), place)

    def create(self, path: str, content: bytes) -> None:
        """Store `content`, in one step; FileExistsError if something is there, maybe by our own first try."""
        files, place = self._at(path)
        try:
            files.pipe_file(place, content, mode="create")
        except OSError as error:
            code = _error_code(error)
            if code == "PreconditionFailed" or (code == "NotImplemented" and self.exists(path)):
                raise FileExistsError(place) from error  # Ceph's comes as EINVAL
            if code != "NotImplemented":
                raise
            files.pipe_file(place, content)  # a server without conditional writes: the best it can do

    def exists(self, path: str) -> bool:
        files, place = self._at(path)
        try:
            return bool(files.info(place)["type"] == "file")
        except FileNotFoundError:  # not `files.exists`, which answers False to a lost connection too
            return False

    def list(self, folder: str) -> list[str]:
        """Return the objects below `folder` at any depth, relative to the root."""
        return sorted(self.details(folder))

    def details(self, folder: str) -> dict[str, Stored]:
        files, place = self._at(folder)
        start = len(self._at("x")[1]) - 1
        try:
            found = files.find(place, detail=True)
        except FileNotFoundError:
            return {}
        return {
            name[start:]: Stored(size=said["size"], stamp=_stamp(said))
            for name, said in found.items()
            if name != place and not name.endswith("/")
        }

    def stat(self, path: str) -> Stored:
        files, place = self._at(path)
        said = files.info(place)
        return Stored(size=said["size"], stamp=_stamp(said))

    def delete(self, path: str) -> None:
        files, place = self._at(path)
        with contextlib.suppress(FileNotFoundError):
            files.rm_file(place)

    def delete_many(self, paths: Iterable[str]) -> None:
        """Remove these by a request each: servers differ in what they take for several, and tell."""
        with ThreadPoolExecutor(NUM_DELETES) as deletes:
            list(deletes.map(self.delete, paths))

    def delete_all(self, folder: str) -> None:
        for path in self.list(folder):
            self.delete(path)

    def _at(self, path: str) -> tuple[Any, str]:
        """Return the file system and the full path there.

        Opened once in each process: s3fs's event loop does not survive a fork.
        """
        if self._opened is None or self._opened[0] != os.getpid():
            files, root = _open(self.url, self.options)
            self._opened = (os.getpid(), files, root.rstrip("/"))
        _, files, root = self._opened
        return files, f"{root}/{path}" if path else root


def _open(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the file system and the root. Raises JobError for what is no store, or lacks an option."""
    try:
        files, root = fsspec.core.url_to_fs(
            url,
            skip_instance_cache=True,
            use_listings_cache=False,  # other processes write here too
            **_filesystem_options(url, options),
        )
    except (
        Exception
    ) as error:  # of zipfile, tarfile, a constructor: of what was given, unless a service said so
        if isinstance(error, OSError | BotoCoreError) and not isinstance(error, FileNotFoundError):
            raise
        said = public_text(f"{type(error).__name__}: {error}")
        raise JobError(
            f"{public_url(url)} cannot be opened: {said}", "check the URL and storage_options"
        ) from None
    return files, root


def _stamp(said: Mapping[str, Any]) -> str:
    """Return the best that this store has; "" where it has only sizes."""
    keys = (
        "ETag",
        "etag",
        "md5Hash",
        "content_md5",
        "LastModified",
        "last_modified",
        "updated",
        "mtime",
        "created",
    )
    return next((str(said[key]) for key in keys if said.get(key)), "")


def _filesystem_options(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the user's options, for S3 with more patience unless they chose their own.

    A deep copy for every file system: botocore changes the mapping it is given.
    """
    chosen = copy.deepcopy(dict(options))
    if url.startswith(("s3://", "s3a://")) and not S3_RETRIES_IN_ENVIRONMENT & os.environ.keys():
        chosen.setdefault("config_kwargs", {}).setdefault("retries", dict(S3_RETRIES))
    return chosen
