"""Names of parts: which run wrote them, under which epoch of the lock, as its how-manyth, with which bytes.

`part-000007-20260102T030405-89abcdef-000012-0123456789abcdef.parquet`: the 12th part of a run of epoch 7, and
the first 16 hex digits of its SHA-256. A run makes a part after the one before it is stored. Parts of earlier
versions have neither epoch nor digest, and parts that people put together any name.
"""

from __future__ import annotations

import hashlib
import logging
import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath

from framefleet.pipeline.outputs.stores.store import Store

_NAME = re.compile(
    r"part-(?P<run>[A-Za-z0-9-]+?)-(?P<number>\d{6,9})(-(?P<digest>[0-9a-f]{16}))?\.parquet", re.ASCII
)
RUN = re.compile(r"(?P<epoch>\d{6,9})-\d{8}T\d{6}-[0-9a-f]{8}", re.ASCII)
_MAX_SHOWN = 3  # files that are not parts

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A part, by its name. Sorted as they were written: of two that name one row the later counts."""

    epoch: int  # 0, as `number`, where the name says none
    run: str
    number: int
    path: str
    digest: str = field(compare=False)  # "" where the name says none

    def is_of(self, content: bytes) -> bool:
        """Tell whether these are the bytes that were written under this name, as far as it says."""
        return not self.digest or short_digest(content) == self.digest


def new_run(epoch: int) -> str:
    """Return a name that no other run has; names sort by epoch and time."""
    return f"{epoch:06d}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


def merging_run(epoch: int) -> str:
    """Return a new name as `new_run` does, before all others of its epoch: for rows of earlier parts."""
    return f"{epoch:06d}-00000000T000000-{uuid.uuid4().hex[:8]}"


def part_path(folder: str, run: str, number: int, content: bytes) -> str:
    """Return where a part lies."""
    return f"{folder}/part-{run}-{number:06d}-{short_digest(content)}.parquet"


def short_digest(content: bytes) -> str:
    """Return what names say of bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def part_of(path: str) -> Part | None:
    """Return what a file's name says; None for one that no reader of Parquet folders takes for a part."""
    name = PurePosixPath(path).name
    if name.startswith((".", "_")) or not name.endswith(".parquet"):
        return None
    if not (words := _NAME.fullmatch(name)):
        return Part(0, "", 0, path, "")
    run = RUN.fullmatch(words["run"])
    epoch = int(run["epoch"]) if run else 0
    return Part(epoch, words["run"], int(words["number"]), path, words["digest"] or "")


def parts_in(store: Store, folder: str) -> list[Part]:
    """Return the parts of a folder as they were written; other files are left alone and logged."""
    parts, others = [], []
    for path in store.list(folder):
        if part := part_of(path):
            parts.append(part)
        else:
            others.append(path)
    if others:
        shown = ", ".join([*others[:_MAX_SHOWN], *(["..."] if len(others) > _MAX_SHOWN else [])])
        log.info("%s: %d files are not parts, and left alone: %s", store.url_of(folder), len(others), shown)
    return sorted(parts)
