"""What S3 has of its own, below fsspec: patience of its client, checksums, uploads left half done."""

from __future__ import annotations

import copy
import hashlib
import os
import re
import socket
from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from botocore.exceptions import FlexibleChecksumError

from framefleet.pipeline.outputs.stores.retries import DamagedUpload

# One put up to S3's limit for it: it is sent again as a whole, but a conditional one is then kept to by every
# server (Ceph's gateway heeds no condition when an upload in parts is completed), and its ETag is an MD5.
MAX_PUT_BYTES = 5 << 30
MD5 = re.compile("[0-9a-f]{32}")  # what the ETag of one put is, of most servers
# `Patience` waits; below it a request, or a part of an upload, is repeated once.
_RETRIES = {"mode": "standard", "total_max_attempts": 2}
_RETRIES_IN_ENVIRONMENT = {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"}
# Without it a peer that is gone while we send is noticed after a quarter of an hour.
_UNACKNOWLEDGED_MS = 30_000


def is_s3(url: str) -> bool:
    return url.startswith(("s3://", "s3a://"))


def s3_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy of the options (botocore changes them), with ours where nothing was chosen."""
    chosen = copy.deepcopy(dict(options))
    config = chosen.setdefault("config_kwargs", {})
    if not _RETRIES_IN_ENVIRONMENT & os.environ.keys():
        config.setdefault("retries", dict(_RETRIES))
    config.setdefault("connector_args", {}).setdefault("socket_factory", _new_socket)
    return chosen


def limit_waits(files: Any) -> None:
    """Let a file system that was opened try once, and wait for no answer without end."""

    def send_at_once(params: dict[str, Any], **_: Any) -> None:
        """Send a body without asking first: for that answer aiohttp waits without end."""
        params["headers"].pop("Expect", None)

    files.retries = 1  # s3fs's own, which would multiply botocore's
    files.s3.meta.events.register_last("before-call.s3", send_at_once)


def put(files: Any, place: str, content: bytes, **mode: str) -> bool:
    """Store content by one checked request; return whether the answer says so. Raises DamagedUpload."""
    if len(content) >= MAX_PUT_BYTES:
        files.pipe_file(place, content, **mode)
        return False
    md5 = hashlib.md5(content, usedforsecurity=False)
    check = b64encode(md5.digest()).decode()
    answer = files.pipe_file(place, content, chunksize=MAX_PUT_BYTES, ContentMD5=check, **mode)
    etag = answer.get("ETag", "").strip('"')
    if etag == md5.hexdigest():
        return True
    # With keys of KMS and of one's own the ETag is another digest than the MD5.
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
    """Abort uploads in parts that were begun below a root before then, and not ended; return how many."""
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
