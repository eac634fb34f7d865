"""Which parts count: a driver that takes an output over writes down which it found; later ones do not count.

In `drivers/<epoch>.json`, which only its driver writes (`cluster/driver/lock.py`), `sealed` are the parts of
earlier epochs that were there when it began and, once it has ended, its own: what is sealed but not there is
gone. A part that arrives later is *late*, and stays late, as each seal builds on the one before: readers
ignore it, and the driver with the lock deletes it. `merged` are parts whose rows are in larger ones
(`plugins/compact`): one write makes these count instead of the others. Why: docs/why/stores.md.

Parts of `scores/` have their own epochs, those of `columns/<epoch>.json`: a process that fills in columns
has them to itself, and writes down which parts of the processes that it replaced count. Parts of version
0.1.0 have the epoch 0, and are older than all others.

The name of a part has its run, the epoch of that, its number in the run, and a digest of its bytes.
`part-000007-20260102T030405-89abcdef-000012-0123456789abcdef.parquet`: the 12th part of a run of epoch 7, and
the first 16 hex digits of its SHA-256. Parts that people put together may have any name.
"""

from __future__ import annotations

import hashlib
import logging
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import PurePosixPath
from typing import Protocol

from pydantic import BaseModel, TypeAdapter

from framefleet.pipeline.errors import count_text
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.outputs.layout import COLUMN_LOCKS, DRIVERS, RECORDS, SCORES
from framefleet.pipeline.outputs.stores.store import Store

_NAME = re.compile(
    r"part-(?P<run>[A-Za-z0-9-]+?)-(?P<number>\d{6,9})(-(?P<digest>[0-9a-f]{16}))?\.parquet", re.ASCII
)
RUN = re.compile(r"(?P<epoch>\d{6,9})-\d{8}T\d{6,12}-[0-9a-f]{8}", re.ASCII)
_MAX_SHOWN = 3  # files that are not parts


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A part, by its name. Parts sort as they were written: of two that name a row, the later one counts."""

    epoch: int  # 0, like `number`, if the name has none
    run: str
    number: int
    path: str
    digest: str = field(compare=False)  # "" if the name has none

    def is_of(self, content: bytes) -> bool:
        """Return whether these bytes were written under this name, as far as it says."""
        return not self.digest or short_digest(content) == self.digest


def new_run(epoch: int) -> str:
    """Return a new name for a run; names sort by epoch and time."""
    return f"{epoch:06d}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}"


def numbered_run(epoch: int, number: int) -> str:
    """Return a new name that sorts by its number, and not by time, among those of its epoch.

    number: those below 20,000,000 sort before the names of `new_run`.
    """
    return f"{epoch:06d}-{number:08d}T000000-{uuid.uuid4().hex[:8]}"


def part_path(folder: str, run: str, number: int, content: bytes) -> str:
    return f"{folder}/part-{run}-{number:06d}-{short_digest(content)}.parquet"


def short_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def part_of(path: str) -> Part | None:
    """Return the part with this name; None if readers of Parquet folders ignore such a file."""
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
        ignored = count_text(len(others), "file")
        log.info("%s: ignored %s that are not parts: %s", store.url_of(folder), ignored, shown)
    return sorted(parts)


_EPOCH = re.compile(r"(\d{6,9})\.json", re.ASCII)
LAST_EPOCH = 999_999_999
MAX_DRIVER_BYTES = 1 << 25  # of a driver's file: a seal has some 50 bytes for each run that left parts
MAX_GONE = 100_000  # names in memory; 100 million rows make 16,000 parts
_MAX_RUN, _MAX_NUMBER = 255, LAST_EPOCH  # in names of files

# By run, the first and the last of each stretch of its parts' numbers.
Sealed = Mapping[str, list[tuple[int, int]]]
SEALED = TypeAdapter(dict[str, list[tuple[int, int]]])


log = logging.getLogger(__name__)


class Hold(Protocol):
    """The right to write to an output. check: raises StoreError if another process has it by now."""

    epoch: int

    def check(self) -> None: ...


class MergingHold(Hold, Protocol):
    """merged: makes the first `count` parts of a run count, no others of it, and none of `parts`."""

    def merged(self, parts: Iterable[Part], *, run: str, count: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Seal:
    """Which parts were there when a driver began."""

    epoch: int  # of that driver
    sealed: Sealed  # the parts of earlier epochs that count
    merged: Sealed = field(default_factory=dict)  # parts whose rows are in larger ones by now
    # How many such larger parts count, by run: the next one may exist while the parts that it will replace
    # still count.
    merges: Mapping[str, int] = field(default_factory=dict)

    def counts(self, part: Part) -> bool:
        """Return whether readers use the rows of a part."""
        if self.is_late(part) or is_sealed(part, self.merged):
            return False
        return part.number <= self.merges.get(part.run, part.number)

    def is_late(self, part: Part) -> bool:
        """Return whether a part came after its epoch had ended, or had been merged by then."""
        return 0 < part.epoch < self.epoch and not is_sealed(part, self.sealed)


_SEAL = TypeAdapter(Seal)


def is_sealed(part: Part, sealed: Sealed) -> bool:
    return any(first <= part.number <= last for first, last in sealed.get(part.run, ()))


def epoch_path(epoch: int, folder: str = DRIVERS) -> str:
    return f"{folder}/{epoch:06d}.json"


def request_path(epoch: int, what: str) -> str:
    """Return the path of the file that asks the driver of an epoch for something."""
    return f"{DRIVERS}/{epoch:06d}.{what}"


def epochs_of(store: Store, folder: str = DRIVERS) -> list[int]:
    """Return the epochs of an output, in order; [] if no driver has begun."""
    names = (_EPOCH.fullmatch(path.removeprefix(f"{folder}/")) for path in store.list(folder))
    return sorted(int(name[1]) for name in names if name)


def newest_seal(store: Store) -> Seal:
    """Return the seal that decides which parts count."""
    for epoch in reversed(epochs_of(store)):
        # Missing, not a mapping, or other values: the driver has not sealed yet, or its file is not ours.
        with suppress(FileNotFoundError, TypeError, ValueError):
            driver = parse_json(store.read(epoch_path(epoch), MAX_DRIVER_BYTES))
            return _SEAL.validate_python({**driver, "epoch": epoch})
    return Seal(0, {})


def live_parts(store: Store) -> list[Part]:
    """Return the parts of records that count, in the order in which they were written."""
    seal = newest_seal(store)
    while True:
        parts = parts_in(store, RECORDS)
        before, seal = seal, newest_seal(store)
        if seal == before:  # else parts may have gone before the larger one was there to be listed
            return [part for part in parts if seal.counts(part)]


class ColumnSeal(BaseModel):
    """Which parts of `scores/` count: all but those that came after their writer had been replaced."""

    # By the epoch of a writer that was replaced, its parts that were there.
    replaced: dict[int, dict[str, list[tuple[int, int]]]] = {}

    def counts(self, part: Part) -> bool:
        return part.epoch not in self.replaced or is_sealed(part, self.replaced[part.epoch])


def column_seal(store: Store) -> ColumnSeal:
    for epoch in reversed(epochs_of(store, COLUMN_LOCKS)):
        with suppress(FileNotFoundError, ValueError):  # files may be anybody's
            return ColumnSeal.model_validate_json(
                store.read(epoch_path(epoch, COLUMN_LOCKS), MAX_DRIVER_BYTES)
            )
    return ColumnSeal()


def column_parts(store: Store) -> list[Part]:
    """Return the parts of `scores/` that count, in the order in which they were written."""
    parts = parts_in(store, SCORES)
    if not any(part.epoch for part in parts):
        return parts
    seal = column_seal(store)
    return [part for part in parts if seal.counts(part)]


def sealed_of(parts: Iterable[Part], before: Sealed | None = None) -> Sealed:
    """Return parts in the form of a seal, added to those that it had before."""
    numbers = {run: list(stretches) for run, stretches in (before or {}).items()}
    for part in parts:
        numbers.setdefault(part.run, []).append((part.number, part.number))
    united: dict[str, list[tuple[int, int]]] = {run: [] for run in numbers}
    for run, stretches in united.items():
        for first, last in sorted(numbers[run]):
            if stretches and first <= stretches[-1][1] + 1:
                stretches[-1] = stretches[-1][0], max(last, stretches[-1][1])
            else:
                stretches.append((first, last))
    return united


def gone_parts(store: Store) -> list[str]:
    """Return the parts that were sealed but are gone, by the beginning of their names, which a seal has.

    At most `MAX_GONE` of them, however many a seal names: it may be anybody's.
    """
    there = parts_in(store, RECORDS)
    seal = newest_seal(store)  # after the listing: what was merged by then may be gone
    others = sealed_of(there, seal.merged)
    names = (
        f"{RECORDS}/part-{run}-{number:06d}"
        for run, stretches in seal.sealed.items()
        if len(run) <= _MAX_RUN
        for first, last in _without(stretches, others.get(run, []))
        for number in range(first, min(last, _MAX_NUMBER) + 1)
    )
    return [*islice(names, MAX_GONE)]


def _without(
    stretches: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield what is left of stretches without the others, which are in order."""
    for first, last in stretches:
        for start, end in others:
            if first < start:
                yield first, min(last, start - 1)
            first = max(first, end + 1)
        yield first, last


def delete_late(store: Store, paths: Iterable[str]) -> None:
    """Delete a driver's own parts that came too late; none before the next driver has sealed."""
    seal = newest_seal(store)
    for part in filter(None, map(part_of, paths)):
        if seal.is_late(part):
            store.delete(part.path)


def sweep_late(store: Store, hold: Hold) -> list[str]:
    """Delete late parts; return their paths. No later seal makes them count, so nothing is lost."""
    seal = newest_seal(store)
    late = [part.path for part in parts_in(store, RECORDS) if seal.is_late(part)]
    if late:
        hold.check()
        store.delete_many(late)
    for path in late:
        log.info("%s came after its driver had lost the output, or was merged: deleted", store.url_of(path))
    return late
