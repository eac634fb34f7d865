"""In: bytes and a path below an fsspec URL. Out: an object that is complete, byte for byte, or none.

An object is stored by one `pipe_file`, never by `open(..., "wb")`: leaving that block by an exception
publishes what was written so far. `create` is atomic where the store has conditional writes (S3, Google Cloud
Storage, Azure); elsewhere it looks first and then writes. Every request is made once: `Store` repeats it.

Code for Google Cloud Storage and S3 comes first: patience of their clients, checksums, errors, unfinished
uploads.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
import os
import re
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MethodType
from typing import Any

import fsspec
from botocore.exceptions import FlexibleChecksumError

from framefleet.pipeline.errors import JobError, count_text
from framefleet.pipeline.guards.redaction import public_text, public_url
from framefleet.pipeline.outputs.stores.retries import (
    CHECKSUM_VARIABLES,
    OUTAGE_S,
    DamagedUpload,
    Reply,
    answers_of,
    may_refuse_checksums,
    trouble_of,
)

_SCHEMES = ("gs", "gcs")
_AZURE = ("az", "abfs", "abfss")
# aiohttp's own limit is five minutes for a whole request, even for a large one that makes progress.
_CONNECT_S = 20
_SILENCE_S, _LEAST_SILENCE_S = 60.0, 10.0  # as botocore; a busy gateway needs some
# Methods that gcsfs tries six times, with half a minute of pauses.
_REPEATED = ("_request", "_get_file_request", "_get_file_concurrent")

# Not gcsfs's newer class for zonal buckets: it asks another service what kind of bucket this is, and if that
# is not allowed, it asks again with every request.
_CLASSES = dict.fromkeys(_SCHEMES, ("gcsfs.core.GCSFileSystem", "pip install 'framefleet[gcs]'"))
_CLASSES |= dict.fromkeys(_AZURE, ("adlfs.AzureBlobFileSystem", "pip install 'framefleet[azure]'"))
for _scheme, (_class, _fix) in _CLASSES.items():
    fsspec.register_implementation(_scheme, _class, clobber=True, errtxt=_fix)


def is_gcs(url: str) -> bool:
    return url.partition("://")[0] in _SCHEMES


def silence_s(outage_s: float) -> float:
    """Return how long to wait for an answer, so that an outage is noticed well before it lasts too long."""
    return min(_SILENCE_S, max(_LEAST_SILENCE_S, outage_s / 8))


def put_on_gcs(files: Any, place: str, content: bytes, **mode: str) -> None:
    """Store content, whole or not at all. Raises DamagedUpload if its MD5 is another there."""
    try:
        files.pipe_file(place, content, **mode)
    except Exception as error:  # gcsfs's own: importing its class takes a second
        if type(error).__name__ != "ChecksumError":
            raise
        raise DamagedUpload(str(error)) from error


# Up to S3's limit for one put, we use one: it can only be sent again as a whole, but every server heeds its
# condition (Ceph's gateway does not when an upload in parts is completed), and its ETag is an MD5.
MAX_PUT_BYTES = 5 << 30
MD5 = re.compile("[0-9a-f]{32}")  # the ETag of one put, on most servers
# `Patience` waits; below it a request, or a part of an upload, is repeated once.
_RETRIES = {"mode": "standard", "total_max_attempts": 2}
_RETRIES_IN_ENVIRONMENT = {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"}
# Without it, we notice only after a quarter of an hour that the peer has gone while we send.
_UNACKNOWLEDGED_MS = 30_000


def is_s3(url: str) -> bool:
    return url.startswith(("s3://", "s3a://"))


def s3_options(options: Mapping[str, Any], outage_s: float = OUTAGE_S) -> dict[str, Any]:
    """Return a deep copy of the options (botocore changes them), with ours where nothing was chosen."""
    chosen = copy.deepcopy(dict(options))
    config = chosen.setdefault("config_kwargs", {})
    if not _RETRIES_IN_ENVIRONMENT & os.environ.keys():
        config.setdefault("retries", dict(_RETRIES))
    config.setdefault("read_timeout", silence_s(outage_s))
    config.setdefault("connector_args", {}).setdefault("socket_factory", _new_socket)
    return chosen


CHECKSUMS_REFUSED = "%s refuses S3's newer checksums: going on without them"


def without_checksums(url: str, options: Mapping[str, Any], error: BaseException) -> dict[str, Any] | None:
    """Return options without S3's newer checksums if the store may have refused these; else None."""
    config = options.get("config_kwargs", {})
    chosen = {name for name, variable in CHECKSUM_VARIABLES.items() if variable in os.environ}
    without = dict.fromkeys(CHECKSUM_VARIABLES.keys() - chosen - config.keys(), "when_required")
    if not (is_s3(url) and without and may_refuse_checksums(error)):
        return None
    return {**options, "config_kwargs": config | without}


def _send_at_once(params: dict[str, Any], **_: Any) -> None:
    """Send a body without asking first: aiohttp would wait for the answer without a limit."""
    params["headers"].pop("Expect", None)


def put(files: Any, place: str, content: bytes, **mode: str) -> bool:
    """Store content with one checked request; return whether the answer confirms it. Raises DamagedUpload."""
    if len(content) >= MAX_PUT_BYTES:
        files.pipe_file(place, content, **mode)
        return False
    md5 = hashlib.md5(content, usedforsecurity=False)
    check = b64encode(md5.digest()).decode()
    answer = files.pipe_file(place, content, chunksize=MAX_PUT_BYTES, ContentMD5=check, **mode)
    etag = answer.get("ETag", "").strip('"')
    if etag == md5.hexdigest():
        return True
    # With KMS or one's own keys, the ETag is not the MD5.
    encryption = answer.get("ServerSideEncryption", "AES256")
    is_encrypted = "SSECustomerAlgorithm" in answer or encryption != "AES256"
    if MD5.fullmatch(etag) and not is_encrypted:
        try:
            is_stored = files.cat_file(place) == content
        except FlexibleChecksumError:  # the checksum that was sent along is not that of what is there
            is_stored = False
        if not is_stored:
            raise DamagedUpload("other bytes are stored than were sent")
    return False


def abort_uploads(files: Any, root: str, *, before: datetime) -> int:
    """Abort uploads in parts below a root that began before then and have not ended; return how many."""
    bucket, _, key = root.partition("/")
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": f"{key}/" if key else ""}
    uploads: list[dict[str, Any]] = []
    page: dict[str, Any] = {"IsTruncated": True}
    while page.get("IsTruncated"):
        page = files.call_s3("list_multipart_uploads", **request)
        uploads += (upload for upload in page.get("Uploads", []) if upload["Initiated"] < before)
        request |= {"KeyMarker": page.get("NextKeyMarker"), "UploadIdMarker": page.get("NextUploadIdMarker")}
    for upload in uploads:
        names = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
        files.call_s3("abort_multipart_upload", Bucket=bucket, **names)
    return len(uploads)


def _new_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket for aiohttp that gives up a peer which takes nothing any more."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
    return made


# Stores' clocks differ from ours by less, and uploads in parts take less.
_LEFT_AFTER = timedelta(hours=6)
NUM_DELETES = 8  # at once: each is answered in tens of milliseconds
CHECKS: dict[str, Any] = {"validate_content": True}  # of each put: its MD5
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a store says about one of its files. stamp: differs after every change, e.g. an ETag."""

    size: int
    stamp: str


class ObjectStore:
    """Objects below `url`. Raises what fsspec and the store's own library raise: anything."""

    def __init__(self, url: str, options: dict[str, Any], outage_s: float = OUTAGE_S) -> None:
        self.url, self.options, self._outage_s = url, options, outage_s
        self._checks = CHECKS if is_azure(url) else {}
        self._opened: tuple[object, int, Any, str] | None = None  # for which options, process id, files, root
        self._chosen = object()  # another one after each change of the options or the credentials
        self._learning = threading.Lock()  # held while it is not known whether checksums are refused

    def ask(self, request: Callable[[], Reply]) -> Reply:
        """Return the answer to a request. A store that refuses S3's newer checksums gets none from then on.

        Parts of large files have no other check, so other stores get them.
        """
        chosen = self._chosen
        try:
            return request()
        except Exception as error:  # botocore's, below s3fs's
            if without_checksums(self.url, {}, error) is None:
                raise
            refusal = error
        with self._learning:  # what one thread tries, no other one may take for what is known
            if self._chosen is not chosen:  # another thread tried it meanwhile
                try:
                    return request()
                except Exception as error:
                    refusal = error
            options = without_checksums(self.url, self.options, refusal)
            if options is None:
                raise refusal
            config = self.options.get("config_kwargs", {})
            self.options.update(options)  # `Store` hands them on to other processes
            self.reopen()
            try:
                answer = request()
            except Exception:  # so it was not that
                self.options["config_kwargs"] = config
                self.reopen()
                raise
        log.warning(CHECKSUMS_REFUSED, public_url(self.url))
        return answer

    def reopen(self) -> None:
        """Read credentials again with the next request: their files are read when a store is opened."""
        self._chosen = object()

    def read(self, path: str, count: int | None = None) -> bytes:
        return self.read_own(path, 0, count)

    def read_own(self, path: str, first: int, count: int | None) -> bytes:
        """Return `count` bytes of an object from `first` on; None: all of it."""
        files, place = self._at(path)
        part = {} if count is None else {"start": first, "end": first + count}
        try:
            content: bytes = files.cat_file(place, **part)
        except Exception as error:  # Azure's are not OSErrors
            if _code(error) != "InvalidRange":
                raise
            return b""  # an empty object has no first byte
        return content

    def sha256(self, path: str) -> str:
        files, place = self._at(path)
        with files.open(place, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

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
            self.delete(path)  # ours, and nobody knows it: the place must be free for the next attempt
            raise
        except OSError as error:
            code = _code(error)
            if code == "PreconditionFailed" or (code == "NotImplemented" and self.exists(path)):
                raise FileExistsError(path) from error  # Ceph's comes as EINVAL
            if code != "NotImplemented":
                raise
            self.write(path, content)  # the best that a server without conditional writes can do

    def has_conditions(self, path: str) -> bool:
        """Return whether the server refuses a second object at `path`: `create` is one step. Leaves one."""
        if not (is_s3(self.url) or is_gcs(self.url) or is_azure(self.url)):
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
        if is_s3(self.url):
            if put(files, place, content, **mode):
                return
        elif is_gcs(self.url):
            put_on_gcs(files, place, content, **mode)
        else:
            files.pipe_file(place, content, **mode, **self._checks)
        self._check_size(files, place, len(content))

    def _check_size(self, files: Any, place: str, size: int) -> None:
        stored = files.info(place)["size"]
        if stored != size:
            raise DamagedUpload(f"stored: {count_text(stored, 'byte')} of {size:,}")

    def exists(self, path: str) -> bool:
        files, place = self._at(path)
        try:
            return bool(files.info(place)["type"] == "file")
        except FileNotFoundError as error:  # not `files.exists`, which answers False to a lost connection too
            _raise_if_missing(error)
            return False

    def children(self, folder: str) -> list[str]:
        files, place = self._at(folder)
        try:
            entries = files.ls(place, detail=True)
        except FileNotFoundError as error:
            _raise_if_missing(error)
            return []
        names = {entry["name"].strip("/"): entry["type"] == "directory" for entry in entries}
        start = len(place.strip("/"))
        return sorted(
            f"{folder}{name[start:]}{'/' if is_folder else ''}"
            for name, is_folder in names.items()
            if len(name) > start
        )

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
        """Remove these with one request each: servers differ in requests for several, and their answers."""
        with ThreadPoolExecutor(NUM_DELETES) as deletes:
            list(deletes.map(self.delete, paths))

    def delete_all(self, folder: str) -> None:
        self.delete_many(self.list(folder))

    def sweep(self) -> int:
        """Abort uploads in parts that nobody will end; return how many. Other stores than S3 forget them."""
        if not is_s3(self.url):
            return 0
        files, root = self._at("")
        return abort_uploads(files, root, before=datetime.now(UTC) - _LEFT_AFTER)

    def _at(self, path: str) -> tuple[Any, str]:
        """Return file system and path, opened once per process: s3fs's loop does not survive a fork."""
        opened, chosen = self._opened, self._chosen  # another thread may reopen
        if opened is None or opened[:2] != (chosen, os.getpid()):
            files, root = _open(self.url, self.options, self._outage_s)
            opened = self._opened = (chosen, os.getpid(), files, root.rstrip("/"))
        *_, files, root = opened
        return files, f"{root}/{path}" if path else root


def _open(url: str, options: Mapping[str, Any], outage_s: float) -> tuple[Any, str]:
    """Return the file system and the root. Raises JobError if it is not a store, or lacks an option."""
    # A copy of the user's options, with ours where they have chosen nothing.
    own_options = s3_options(options, outage_s) if is_s3(url) else copy.deepcopy(dict(options))
    if is_gcs(url):
        from aiohttp import ClientTimeout

        patience = ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=silence_s(outage_s))
        own_options = {"consistency": "md5", "requests_timeout": patience, **own_options}
    try:
        # other processes write here too
        uncached = {"skip_instance_cache": True, "use_listings_cache": False}
        files, root = fsspec.core.url_to_fs(url, **uncached, **own_options)
    except Exception as error:  # of zipfile, a constructor, ...: about the URL, unless it is a service's
        is_service = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
        if is_service or trouble_of(error) not in ("invalid", "other"):
            raise
        reason = public_text(f"{type(error).__name__}: {error}")
        problem = f"{public_url(url)} cannot be opened: {reason}"
        raise JobError(problem, "check the URL and storage_options") from None
    # Each makes a request once, as `Patience` repeats it.
    if is_s3(url):
        files.retries = 1  # s3fs's own, which would multiply botocore's
        files.s3.meta.events.register_last("before-call.s3", _send_at_once)
    elif is_gcs(url):
        for name in _REPEATED:
            if once := getattr(getattr(type(files), name, None), "__wrapped__", None):
                setattr(files, name, MethodType(once, files))
    elif is_azure(url):  # not four times in a minute
        policy = getattr(getattr(files.service_client, "_config", None), "retry_policy", None)
        if policy is not None:
            policy.total_retries = 0
    return files, root


def stamp_of(details: Mapping[str, Any]) -> str:
    """Return the best stamp that a store has; "" if it only has sizes."""
    keys = ("ETag", "etag", "md5Hash", "content_md5")
    times = ("LastModified", "last_modified", "updated", "mtime", "created")
    return next((str(details[key]) for key in keys + times if details.get(key)), "")


# Where a proxy answers in the place of the store, the status is all there is.
_BY_STATUS = {412: "PreconditionFailed", 416: "InvalidRange", 501: "NotImplemented"}


def _code(error: BaseException) -> str:
    """Return the server's name for an error; "" if there is none."""
    code, status = next(filter(any, answers_of(error)), ("", 0))
    return _BY_STATUS.get(status, code)


def _raise_if_missing(error: FileNotFoundError) -> None:
    """Raise the error if not only one object is missing, but its bucket."""
    if trouble_of(error) == "missing":
        raise error


def is_azure(url: str) -> bool:
    return url.partition("://")[0] in _AZURE
