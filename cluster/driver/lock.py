"""In: the store of one output. Out: the right to write there, held by one driver at a time.

Each driver that takes an output over creates the file of the next epoch, `drivers/<epoch>.json`; of several
that try one wins. In its own file a driver raises a counter every few seconds. It is replaced at once where
its file or its machine says that it is gone, and otherwise once its counter has stood still by our own clock.
What the replaced one still does after a `check` is sealed out: see `outputs/parts/seals.py`.

Whoever takes an output finishes what others left and deletes what does not count, before anything else is
read: parts that were replaced, merged or late, weights of a fleet that is gone.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from framefleet.cluster.driver.progress import AuditFigures, Progress
from framefleet.pipeline.errors import JobError, OutputInUse, StoreConflict, StoreError, command, escaped
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.guards.redaction import public_message
from framefleet.pipeline.metrics import of_runs
from framefleet.pipeline.outputs.layout import DRIVERS, RECORDS, TABLES, WEIGHTS
from framefleet.pipeline.outputs.parts import seals
from framefleet.pipeline.outputs.parts.parts import finish_replacing
from framefleet.pipeline.outputs.stores.store import Store, sweep_in_background

PROC = Path("/proc")
GONE_STATES = {"Z", "X"}  # ended, but its parent has not asked yet
MAX_WORKERS_TOLD = 1000  # a hundred kilobytes; the lock depends on a file that can be read

HELD: set[str] = set()  # owners of this process that hold an output, or try to


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One driver: a process on a machine, and what it has said of its output."""

    owner: str
    host: str
    machine: str  # where it is equal, process ids mean the same to us
    pid: int
    process_started: str  # by the machine's own clock; tells a process from a later one with its id
    beat: int
    started_at: str  # for people; clocks of machines are not compared
    renders: bool = True  # a job, and reports its end; if not, it repairs, merges or asks
    ended: bool = False  # it has given the output back
    left_nothing: bool = False  # and has finished all that it began
    error: str = ""  # that ended it, without secrets
    sealed: seals.Sealed | None = None  # parts of earlier epochs that count, see `outputs/parts/seals.py`
    merged: seals.Sealed = field(default_factory=dict)  # parts whose rows are in larger ones now
    # Of each run of such larger parts, how many count.
    merges: Mapping[str, int] = field(default_factory=dict)
    progress: Progress | None = None  # at its last beat, for those who read the output from elsewhere
    beat_at: str = ""  # for people too
    tables: tuple[str, ...] = ()  # of added rows, which it has taken: its answer to `add`
    is_partial: bool = False  # it renders some rows, e.g. by `--limit`, and none that are added
    can_pause: bool = False  # it obeys PAUSE

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode("utf-8")

    def runs_elsewhere(self) -> bool:
        return not self.machine or self.machine != this_machine()

    def is_gone(self) -> bool:
        """Tell whether it certainly writes no more, as far as this machine can know."""
        if self.ended:
            return True
        if self.runs_elsewhere():
            return False
        is_running = process_started(self.pid) == self.process_started
        is_left = self.pid == os.getpid() and self.owner not in HELD
        return is_left or not is_running


def told_of(progress: Progress, earlier: Progress | None = None) -> Progress:
    """Return what a driver's file says, without texts of others, which not every reader can read.

    earlier: what it said of rows that the same driver rendered before these; counts are of both together.
    """
    workers = progress.workers[:MAX_WORKERS_TOLD]
    shown = replace(progress, workers=workers, last_failure=None, waiting_for=None, unused=())
    if earlier is None:
        return shown
    return replace(
        shown,
        total=earlier.total + progress.total,
        done=earlier.done + progress.done,
        failed=earlier.failed + progress.failed,
        elapsed_s=earlier.elapsed_s + progress.elapsed_s,
        audits=AuditFigures.of_runs(earlier, progress),
        figures=of_runs(earlier.figures, progress.figures),
    )


def this_process(owner: str) -> Holder:
    return Holder(
        owner=owner,
        host=socket.gethostname(),
        machine=this_machine(),
        pid=os.getpid(),
        process_started=process_started(os.getpid()),
        beat=0,
        started_at=moment(),
        beat_at=moment(),
    )


def moment() -> str:
    """Return the current time as files of drivers write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


_HOLDER = TypeAdapter(Holder)


def parse_holder(content: bytes) -> Holder | None:
    """Return the holder written there; None if it is nothing we wrote."""
    try:
        return _HOLDER.validate_python(parse_json(content))
    except ValueError:  # not JSON, or other keys and values
        return None


def read_holder(store: Store, epoch: int) -> Holder | None:
    """Return what the driver of an epoch wrote last; None if that is not ours to read."""
    try:
        return parse_holder(store.read(seals.epoch_path(epoch), seals.MAX_DRIVER_BYTES))
    except FileNotFoundError:
        return None


def newest_holder(store: Store) -> Holder | None:
    """Return who has the output, or had it last."""
    return read_holder(store, max(seals.epochs_of(store), default=0))


def last_reports(store: Store) -> list[Progress]:
    """Return each driver's last report, as far as it can be read; files may be anybody's."""
    holders = (read_holder(store, epoch) for epoch in seals.epochs_of(store))
    return [holder.progress for holder in holders if holder and holder.progress]


def in_use(output: str, holder: Holder | None) -> JobError:
    """Return that another driver writes to an output."""
    who = f"pid {holder.pid} on {holder.host} since {holder.started_at}" if holder else "another driver"
    kind = OutputInUse if holder and holder.renders else JobError
    return kind(
        f"{output} is being written by {who}",
        f"wait for it to end, or stop it ({command('stop', output)})",
    )


@cache
def this_machine() -> str:
    """Return a name for this boot of this machine and this space of process ids; "" where there is none.

    Two containers on one machine have one boot id, but process ids of their own.
    """
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:  # not Linux: the beat alone decides there
        return ""


def process_started(pid: int) -> str:
    """Return when the process started, in ticks since boot; "" if it is gone."""
    try:
        # The name in parentheses may hold spaces and parentheses itself.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    state, start_time = fields[0], fields[19]  # fields 3 and 22 of proc(5)
    return "" if state in GONE_STATES else start_time


STOP, PAUSE = ASKED = ("stop", "pause")  # of a driver, with `framefleet stop` and so on
BEAT_S = 10.0
FIRST_PAUSE_S = 0.05  # before the lock is tried again; then twice as long
EXPIRY_S = 30.0  # three beats: one may be lost, one late

log = logging.getLogger(__name__)


def requests_to(store: Store, epoch: int) -> frozenset[str]:
    """Return what others want of the driver of an epoch: STOP, PAUSE."""
    there = set(store.list(DRIVERS))
    return frozenset(one for one in ASKED if seals.request_path(epoch, one) in there)


def check_not_stopped(store: Store, epoch: int, state: str) -> frozenset[str]:
    """Raise KeyboardInterrupt if the driver of an epoch was asked to end, be it after its last beat.

    Another of the same command may follow, with an epoch of its own. state: what is done, for people.
    Return what else it was asked for.
    """
    requests = requests_to(store, epoch)
    if STOP in requests:
        log.warning("asked to end by `framefleet stop`%s", state)
        raise KeyboardInterrupt
    return requests


class DriverLock:
    """Holds the output within a `with` block. Entering raises JobError where another driver writes there."""

    def __init__(
        self,
        store: Store,
        *,
        renders: bool = True,
        can_pause: bool = False,
        owner: str | None = None,
        beat_s: float = BEAT_S,
        expiry_s: float = EXPIRY_S,
    ) -> None:
        """renders: a job; its end is reported where it says, `status` shows it. can_pause: obeys PAUSE."""
        self._store, self._beat_s, self._expiry_s = store, beat_s, expiry_s
        self._ours = replace(this_process(owner or uuid.uuid4().hex), renders=renders, can_pause=can_pause)
        self._told: Progress | None = None
        self._told_before: Progress | None = None
        self.epoch = 0
        self.asked: frozenset[str] = frozenset()  # of this driver, as of the last beat: STOP, PAUSE
        self.num_tables = 0  # in tables/, where rows are added
        self.lost = threading.Event()  # another driver was seen to have the output
        self._outage: StoreError | None = None  # that has lasted longer than it may, and lasts
        self._released = threading.Event()
        self._writing = threading.Lock()
        self._beating = threading.Thread(target=self._beat, name="driver.lock", daemon=True)

    def __enter__(self) -> DriverLock:
        HELD.add(self._ours.owner)
        try:
            pause_s = FIRST_PAUSE_S
            while not self._take_next():  # another was quicker, or the store's listing lags
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, self._beat_s)
            finish_replacing(self._store, self, self._unfinished())
            self.seal()  # before the first beat: one that comes late must not take the seal back
            self._beating.start()  # before late parts are deleted, which may take longer than EXPIRY_S
            seals.sweep_late(self._store, self)
            self._store.delete_all(WEIGHTS)
            sweep_in_background(self._store)
            self.check()
        except BaseException as error:
            if self._beating.ident:  # others need not wait until this process is gone
                self.__exit__(type(error), error, None)
            HELD.discard(self._ours.owner)
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        self._released.set()
        try:
            self._beating.join(self._beat_s)
            if self._beating.is_alive():  # in an outage, which would be waited for here too
                log.warning("could not release %s: it does not answer", self._store.url_of(self._path))
            elif self.still_ours():
                own = (part for part in seals.live_parts(self._store) if part.epoch == self.epoch)
                sealed = seals.sealed_of(own, self._ours.sealed)
                reason = ""
                if self._ours.renders and isinstance(error, Exception):  # else it was interrupted
                    problem = public_message(error).partition("\nhint: ")[0]
                    reason = escaped(f"{type(error).__name__}: {problem}")
                self._write(ended=True, left_nothing=error is None, sealed=sealed, error=reason)
        except StoreError as failed:  # must not hide what ended the block; the next driver takes over
            log.warning("could not release %s: %s", self._store.url_of(self._path), failed)
        finally:
            HELD.discard(self._ours.owner)

    def _unfinished(self) -> set[int]:
        """Return the epochs since the last driver that finished everything it began."""
        epochs = set[int]()
        for epoch in reversed([epoch for epoch in seals.epochs_of(self._store) if epoch < self.epoch]):
            holder = read_holder(self._store, epoch)
            if holder and holder.left_nothing:
                break
            epochs.add(epoch)
        return epochs

    @property
    def _path(self) -> str:
        return seals.epoch_path(self.epoch)

    def still_ours(self) -> bool:
        """Tell whether the newest epoch is this driver's."""
        if max(seals.epochs_of(self._store), default=0) > self.epoch:  # a listing may lag, and lack our own
            return False
        holder = read_holder(self._store, self.epoch)
        return holder is not None and holder.owner == self._ours.owner

    def check(self) -> None:
        """Raise StoreError if another driver has taken the output."""
        if not self.still_ours():
            self.lost.set()
        self.check_seen()

    def check_seen(self) -> None:
        """Raise StoreError if the output was seen to be out of reach or another driver's; asks nothing."""
        if self._outage:
            raise self._outage
        if self.lost.is_set():
            raise StoreError(
                f"{self._store.url_of(self._path)} is not the newest lock any more, or was taken away: "
                "this driver lost contact with the output for too long",
                "if no other driver writes to this output, run the same command again",
            )

    def seal(self) -> None:
        """Write down which parts of earlier epochs are there; again after some were replaced."""
        earlier = (part for part in seals.live_parts(self._store) if 0 < part.epoch < self.epoch)
        self._write(sealed=seals.sealed_of(earlier))

    def merged(self, parts: Iterable[seals.Part], *, run: str, count: int) -> None:
        """Let the first `count` parts of a run count, no others of it, and none of `parts`."""
        with self._writing:
            merged = seals.sealed_of(parts, self._ours.merged)
            self._ours = replace(self._ours, merged=merged, merges={**self._ours.merges, run: count})
        self._write()  # if that fails, the next beat says it

    def forget_errors(self) -> int:
        """Take the errors of earlier drivers out of their files; return how many had one."""
        holders = {epoch: read_holder(self._store, epoch) for epoch in seals.epochs_of(self._store)}
        failed = {epoch: one for epoch, one in holders.items() if epoch != self.epoch and one and one.error}
        for epoch, holder in failed.items():
            self._store.write(seals.epoch_path(epoch), replace(holder, error="").to_bytes())
        return len(failed)

    def tell(self, progress: Progress) -> None:
        """Have the next beat write the job's progress; returns at once."""
        self._told = told_of(progress, self._told_before)

    def tell_more(self) -> None:
        """Add progress that is reported from now on, about other rows, to what was reported so far."""
        self._told_before = self._told

    def promise(self, tables: Iterable[str], *, is_partial: bool = False) -> None:
        """Say in this driver's file that rows/ has these, to whoever added them and waits for an answer.

        tables: files of added rows, which were read. They are rendered before this driver ends, unless the
        run is partial.
        """
        with self._writing:
            before, tables = self._ours, sorted({*self._ours.tables, *tables})
            self._ours = replace(before, tables=tuple(tables), is_partial=is_partial)
        if self._ours != before:
            self._write()

    def _read(self, path: str) -> bytes | None:
        try:
            return self._store.read(path, seals.MAX_DRIVER_BYTES)
        except FileNotFoundError:
            return None

    def _write(self, **changed: Any) -> None:
        with self._writing:
            self._ours = replace(self._ours, progress=self._told, beat_at=moment(), **changed)
            self._store.write(self._path, self._ours.to_bytes())

    def _take_next(self) -> bool:
        """Wait until the newest driver is gone, and try to be the next; tell whether it worked."""
        # Where somebody has cleared drivers/, parts still tell how far epochs went.
        newest = max(seals.epochs_of(self._store), default=0) or max(
            (part.epoch for part in seals.parts_in(self._store, RECORDS)), default=0
        )
        self._wait_until_abandoned(seals.epoch_path(newest))
        self.epoch = newest + 1
        try:
            self._store.create(self._path, self._ours.to_bytes())
        except StoreConflict:
            return False
        return self.still_ours()

    def _wait_until_abandoned(self, path: str) -> None:
        """Return when the driver that wrote `path` is surely gone, if there was one; or raise JobError."""
        current = self._read(path)
        if current is None:
            return
        holder = parse_holder(current)
        if holder and holder.is_gone():
            return
        if holder and not holder.runs_elsewhere():
            raise in_use(self._store.url_of(""), holder)
        # Until its counter has not moved for long enough, or its driver says that it ended.
        log.warning(
            "%s: another driver was writing here; waiting up to %.0f s to see whether it still is",
            self._store.url_of(path),
            self._expiry_s,
        )
        deadline = time.monotonic() + self._expiry_s
        while time.monotonic() < deadline:
            time.sleep(min(self._beat_s / 2, self._expiry_s / 10))
            now = self._read(path)
            holder = parse_holder(now or b"")
            if now is None or (holder and holder.is_gone()):
                return
            if now != current:
                raise in_use(self._store.url_of(""), holder)

    def _beat(self) -> None:
        """Raise the counter until released, and read requests; end when another driver has the output."""
        while not self._released.wait(self._beat_s):
            try:
                if not self.still_ours():
                    self.lost.set()
                    return
                self._write(beat=self._ours.beat + 1)
                self.asked = requests_to(self._store, self.epoch)
                self.num_tables = len(self._store.list(TABLES))
                self._outage = None
            except StoreError as error:
                if error.kind == "unreachable":  # for as long as it may be
                    self._outage = error
                # Maybe it can be written at the next beat; if not, writing a part will say so.
                log.warning("could not renew %s: %s", self._store.url_of(self._path), error.problem)
