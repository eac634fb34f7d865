"""In: bytes and a path below an fsspec URL. Out: an object that is all there, byte for byte, or not there.

An object is stored by one `pipe_file`, never by `open(..., "wb")`: leaving that block by an exception
publishes what was written so far. `create` is atomic where the store has conditional writes (S3, Google Cloud
Storage, Azure); elsewhere it looks first and then writes. Every request is made once: `Store` repeats it.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.redaction import public_text, public_url
from framefleet.pipeline.outputs.stores import gcs, s3
from framefleet.pipeline.outputs.stores.retries import DamagedUpload, said_by_server, trouble_of

# Clocks of stores differ from ours by less, and uploads in parts take less.
_LEFT_AFTER = timedelta(hours=6)
NUM_DELETES = 8  # at once: each is answered in tens of milliseconds
CHECKS: dict[str, Any] = {"validate_content": True}  # of each put: its MD5


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a store says about one of its files. stamp: another one after every change, as an ETag."""

    size: int
    stamp: str


class ObjectStore:
    """Objects below `url`. Raises what fsspec and the store's own library raise: anything."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url, self.options = url, options
        self._checks = CHECKS if is_azure(url) else {}
        self._opened: tuple[int, Any, str] | None = None  # process id, file system, root

    def reopen(self) -> None:
        """Look for credentials anew with the next request: files of them are read when a store is opened."""
        self._opened = None

    def read(self, path: str, count: int | None = None) -> bytes:
        return self._cat(path) if count is None else self.read_own(path, 0, count)

    def read_own(self, path: str, first: int, count: int) -> bytes:
        """Return `count` bytes of an object from `first` on."""
        return self._cat(path, start=first, end=first + count)

    def _cat(self, path: str, **part: int) -> bytes:
        files, place = self._at(path)
        try:
            content: bytes = files.cat_file(place, **part)
        except Exception as error:  # Azure's are no OSErrors
            if _code(error) != "InvalidRange":
                raise
            return b""  # an empty object has no first byte
        return content

    def download(self, path: str, target: Path) -> None:
        files, place = self._at(path)
        files.get_file(place, str(target))

    def upload(self, path: str, source: Path) -> None:
        files, place = self._at(path)
        size = source.stat().st_size
        files.put_file(str(source), place, **self._checks)
        self._check_size(files, place, size)

    def create(self, path: str, content: bytes) -> None:
        """Store `content`, in one step; FileExistsError if something is there, maybe by our own first try."""
        try:
            self.write(path, content, mode="create")
        except DamagedUpload:
            self.delete(path)  # ours, and nobody knows of it: what is sent again must find the place free
            raise
        except OSError as error:
            code = _code(error)
            if code == "PreconditionFailed" or (code == "NotImplemented" and self.exists(path)):
                raise FileExistsError(path) from error  # Ceph's comes as EINVAL
            if code != "NotImplemented":
                raise
            self.write(path, content)  # a server without conditional writes: the best it can do

    def has_conditions(self, path: str) -> bool:
        """Tell whether the server refuses a second object at `path`: `create` is one step. Leaves one."""
        if not (s3.is_s3(self.url) or gcs.is_gcs(self.url) or is_azure(self.url)):
            return False
        self.write(path, b"first")
        try:
            self.write(path, b"second", mode="create")
        except OSError as error:
            code = _code(error)
            if isinstance(error, FileExistsError) or code == "PreconditionFailed":
                return True
            if code != "NotImplemented":
                raise
        return False

    def write(self, path: str, content: bytes, **mode: str) -> None:
        files, place = self._at(path)
        if s3.is_s3(self.url):
            if s3.put(files, place, content, **mode):
                return
        elif gcs.is_gcs(self.url):
            gcs.put_on_gcs(files, place, content, **mode)
        else:
            files.pipe_file(place, content, **mode, **self._checks)
        self._check_size(files, place, len(content))

    def _check_size(self, files: Any, place: str, size: int) -> None:
        stored = files.info(place)["size"]
        if stored != size:
            raise DamagedUpload(f"{stored:,} bytes of {size:,} are stored")

    def exists(self, path: str) -> bool:
        files, place = self._at(path)
        try:
            return bool(files.info(place)["type"] == "file")
        except FileNotFoundError as error:  # not `files.exists`, which answers False to a lost connection too
            _raise_if_missing(error)
            return False

    def list(self, folder: str) -> list[str]:
        return sorted(self.details(folder))

    def details(self, folder: str) -> dict[str, Stored]:
        files, place = self._at(folder)
        start = len(self._at("x")[1]) - 1
        try:
            objects = files.find(place, detail=True)
        except FileNotFoundError as error:
            _raise_if_missing(error)
            return {}
        return {
            name[start:]: Stored(size=details["size"], stamp=stamp_of(details))
            for name, details in objects.items()
            if name != place and not name.endswith("/")
        }

    def stat(self, path: str) -> Stored:
        files, place = self._at(path)
        details = files.info(place)
        return Stored(size=details["size"], stamp=stamp_of(details))

    def delete(self, path: str) -> None:
        files, place = self._at(path)
        with contextlib.suppress(FileNotFoundError):
            files.rm_file(place)

    def delete_many(self, paths: Iterable[str]) -> None:
        """Remove these by a request each: servers differ in what they take for several, and tell."""
        with ThreadPoolExecutor(NUM_DELETES) as deletes:
            list(deletes.map(self.delete, paths))

    def delete_all(self, folder: str) -> None:
        self.delete_many(self.list(folder))

    def sweep(self) -> int:
        """Abort uploads in parts that nobody will end; return how many. Stores but S3 forget them."""
        if not s3.is_s3(self.url):
            return 0
        files, root = self._at("")
        return s3.abort_uploads(files, root, before=datetime.now(UTC) - _LEFT_AFTER)

    def _at(self, path: str) -> tuple[Any, str]:
        """Return file system and path, opened once per process: s3fs's loop does not survive a fork."""
        opened = self._opened  # another thread may reopen
        if opened is None or opened[0] != os.getpid():
            files, root = _open(self.url, self.options)
            opened = self._opened = (os.getpid(), files, root.rstrip("/"))
        _, files, root = opened
        return files, f"{root}/{path}" if path else root


def _open(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the file system and the root. Raises JobError for what is no store, or lacks an option."""
    # A copy of the user's options, with ours where they have chosen nothing.
    own_options = s3.s3_options(options) if s3.is_s3(url) else copy.deepcopy(dict(options))
    if gcs.is_gcs(url):
        own_options = gcs.gcs_options(own_options)
    try:
        # other processes write here too
        uncached = {"skip_instance_cache": True, "use_listings_cache": False}
        files, root = fsspec.core.url_to_fs(url, **uncached, **own_options)
    except Exception as error:  # of zipfile, a constructor, ...: of what was given, unless a service said so
        is_service = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
        if is_service or trouble_of(error) not in ("invalid", "other"):
            raise
        reason = public_text(f"{type(error).__name__}: {error}")
        problem = f"{public_url(url)} cannot be opened: {reason}"
        raise JobError(problem, "check the URL and storage_options") from None
    if s3.is_s3(url):
        s3.limit_waits(files)
    elif gcs.is_gcs(url):
        gcs.ask_gcs_once(files)
    elif is_azure(url):
        ask_azure_once(files)
    return files, root


def stamp_of(details: Mapping[str, Any]) -> str:
    """Return the best that this store has; "" where it has only sizes."""
    keys = ("ETag", "etag", "md5Hash", "content_md5")
    times = ("LastModified", "last_modified", "updated", "mtime", "created")
    return next((str(details[key]) for key in keys + times if details.get(key)), "")


def _code(error: BaseException) -> str:
    """Return what the server called this error; s3fs keeps it in the cause only."""
    return said_by_server(error)[0] or said_by_server(error.__cause__)[0]


def _raise_if_missing(error: FileNotFoundError) -> None:
    """Raise an error that says more than that one object is not there: its bucket is not."""
    if trouble_of(error) == "missing":
        raise error


def is_azure(url: str) -> bool:
    return url.partition("://")[0] in ("az", "abfs", "abfss")


def ask_azure_once(files: Any) -> None:
    """Let it make each request once, not four times in a minute: `Patience` repeats it."""
    policy = getattr(getattr(files.service_client, "_config", None), "retry_policy", None)
    if policy is not None:
        policy.total_retries = 0
