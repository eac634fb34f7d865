"""In: a folder of an output with a file for each epoch. Out: the right to write, held within a `with` block.

A process that takes it creates the file of the next epoch; if several try, one wins. In its own file, a
holder raises a counter every few seconds. It is replaced at once if its file or its machine says that it is
gone, and otherwise once its counter has stood still for long enough, by our own clock.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import TypeAdapter

from framefleet.pipeline.errors import JobError, StoreConflict, StoreError, UserError
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.outputs.parts import seals
from framefleet.pipeline.outputs.stores.store import Store

PROC = Path("/proc")
GONE_STATES = {"Z", "X"}  # ended, but its parent has not asked yet
BEAT_S = 10.0
FIRST_PAUSE_S = 0.05  # before the lock is tried again; then twice as long
EXPIRY_S = 30.0  # three beats: one may be lost, one late

HELD: set[str] = set()  # owners of this process that hold a lock, or try to

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A process that writes to an output, as its file says."""

    folder: ClassVar[str]  # of the files

    owner: str
    host: str
    machine: str  # where it is equal, process ids mean the same to us
    pid: int
    process_started: str  # by the machine's own clock; differs for a later process with the same id
    beat: int
    started_at: str  # for people; clocks of machines are not compared
    renders: bool = True  # it renders a job, and reports its end; else it repairs, merges, asks or measures
    ended: bool = False  # it has given the output back
    beat_at: str = ""  # for people too

    @classmethod
    def here(cls, owner: str | None = None, **more: Any) -> Self:
        """Return this process."""
        return cls(
            owner=owner or uuid.uuid4().hex,
            host=socket.gethostname(),
            machine=this_machine(),
            pid=os.getpid(),
            process_started=process_started(os.getpid()),
            beat=0,
            started_at=moment(),
            beat_at=moment(),
            **more,
        )

    @classmethod
    def read(cls, store: Store, epoch: int) -> Self | None:
        """Return what the holder of an epoch wrote last; None if there is nothing that we can read."""
        try:
            return cls.parse(store.read(seals.epoch_path(epoch, cls.folder), seals.MAX_DRIVER_BYTES))
        except FileNotFoundError:
            return None

    @classmethod
    def parse(cls, content: bytes) -> Self | None:
        """Return the holder that a file describes; None if framefleet did not write the file."""
        if cls.folder not in _adapters:
            _adapters[cls.folder] = TypeAdapter(cls)
        try:
            writer: Self = _adapters[cls.folder].validate_python(parse_json(content))
        except ValueError:  # not JSON, or other keys and values
            return None
        return writer

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host} since {self.started_at}"

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode("utf-8")

    def runs_elsewhere(self) -> bool:
        return not self.machine or self.machine != this_machine()

    def is_gone(self) -> bool:
        """Return whether it certainly no longer writes, as far as this machine can know."""
        if self.ended:
            return True
        if self.runs_elsewhere():
            return False
        is_running = process_started(self.pid) == self.process_started
        is_left = self.pid == os.getpid() and self.owner not in HELD
        return is_left or not is_running


_adapters: dict[str, TypeAdapter[Any]] = {}  # by folder
_Holder = TypeVar("_Holder", bound=Writer)


class EpochLock(Generic[_Holder]):
    """Holds an output, or columns of it, within a `with` block. Entering raises JobError if another does."""

    def __init__(self, store: Store, ours: _Holder, *, beat_s: float, expiry_s: float) -> None:
        self._store, self._ours, self._beat_s, self._expiry_s = store, ours, beat_s, expiry_s
        self.epoch = 0
        self.lost = threading.Event()  # another was seen to have what this one held
        self._outage: StoreError | None = None  # that has lasted longer than it may, and lasts
        self._released = threading.Event()
        self._writing = threading.Lock()
        self._beating = threading.Thread(target=self._beat, name=f"{ours.folder}.lock", daemon=True)

    def __enter__(self) -> Self:
        HELD.add(self._ours.owner)
        try:
            pause_s = FIRST_PAUSE_S
            while not self._take_next():  # another was quicker, or the store's listing lags
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, self._beat_s)
            self._begin()
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
                self._end(error)
        except StoreError as failed:  # must not hide what ended the block; the next one takes over
            log.warning("could not release %s: %s", self._store.url_of(self._path), failed)
        finally:
            HELD.discard(self._ours.owner)

    # -- What a lock is about --

    def _take_next(self) -> bool:
        """Wait until those who may not write at the same time are gone, and try to be next: `_create`."""
        raise NotImplementedError

    def _refusal(self, holder: _Holder | None) -> UserError:
        """Return the error for what another process holds."""
        raise NotImplementedError

    def still_ours(self) -> bool:
        raise NotImplementedError

    def _begin(self) -> None:
        self._beating.start()

    def _look(self) -> None:
        """Look at requests to the holder, with each beat."""

    def _end(self, error: BaseException | None) -> None:
        self._write(ended=True)

    # -- How --

    @property
    def _path(self) -> str:
        return seals.epoch_path(self.epoch, self._ours.folder)

    def check(self) -> None:
        """Raise StoreError if another has taken what this one held."""
        if not self.still_ours():
            self.lost.set()
        self.check_seen()

    def check_seen(self) -> None:
        """Raise StoreError if the output was seen to be out of reach or another's. Makes no request."""
        if self._outage:
            raise self._outage
        if self.lost.is_set():
            raise StoreError(
                f"{self._store.url_of(self._path)} is not the newest lock any more, or was taken away: "
                "this driver lost contact with the output for too long",
                "if no other driver writes to this output, run the same command again",
            )

    def _read(self, path: str) -> bytes | None:
        try:
            return self._store.read(path, seals.MAX_DRIVER_BYTES)
        except FileNotFoundError:
            return None

    def _write(self, **changed: Any) -> None:
        with self._writing:
            self._ours = replace(self._ours, beat_at=moment(), **changed)
            self._store.write(self._path, self._ours.to_bytes())

    def _create(self, epoch: int) -> bool:
        """Try to take this epoch; return whether it worked."""
        if epoch > seals.LAST_EPOCH:  # names have no room for it
            path = seals.epoch_path(seals.LAST_EPOCH, self._ours.folder)
            problem = f"a file in {self._store.url_of('')} has the epoch {seals.LAST_EPOCH}"
            fix = f"remove what has {seals.LAST_EPOCH} in its name, e.g. {self._store.url_of(path)}"
            raise JobError(f"{problem}, and there is none after it", fix)
        self.epoch = epoch
        try:
            self._store.create(self._path, self._ours.to_bytes())
        except StoreConflict:
            return False
        return self.still_ours()

    def _wait_until_abandoned(self, epoch: int) -> None:
        """Return when the holder of an epoch is surely gone, if there was one; or raise JobError."""
        path = seals.epoch_path(epoch, self._ours.folder)
        current = self._read(path)
        if current is None:
            return
        holder = self._ours.parse(current)
        if holder and holder.is_gone():
            return
        if holder and not holder.runs_elsewhere():
            raise self._refusal(holder)
        # Until its counter has not moved for long enough, or its file says that it ended.
        log.warning(
            "%s: another driver was writing here; waiting up to %.0f s to see whether it still is",
            self._store.url_of(path),
            self._expiry_s,
        )
        deadline = time.monotonic() + self._expiry_s
        while time.monotonic() < deadline:
            time.sleep(min(self._beat_s / 2, self._expiry_s / 10))
            now = self._read(path)
            holder = self._ours.parse(now or b"")
            if now is None or (holder and holder.is_gone()):
                return
            if now != current:
                raise self._refusal(holder)

    def _beat(self) -> None:
        """Raise the counter until released; end when another has what this one held."""
        while not self._released.wait(self._beat_s):
            try:
                if not self.still_ours():
                    self.lost.set()
                    return
                self._write(beat=self._ours.beat + 1)
                self._look()
                self._outage = None
            except StoreError as error:
                if error.kind == "unreachable":  # for as long as is allowed
                    self._outage = error
                # Maybe it can be written at the next beat; if not, writing a part will fail too.
                log.warning("could not renew %s: %s", self._store.url_of(self._path), error.problem)


def moment() -> str:
    """Return the current time, as written into the files of holders."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def this_machine() -> str:
    """Return a name for this boot of this machine and its process ids; "" if the system has none.

    Two containers on one machine have the same boot id, but process ids of their own.
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
