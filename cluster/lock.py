"""In: the store of one output. Out: the right to write there, held by one driver at a time.

`driver.lock` names the driver and a counter that it raises every few seconds. A driver whose process is
gone is replaced at once if that can be seen from here, and otherwise once its counter has stood still by our
own clock. Not covered: two drivers that take over from the same dead one at the same moment may both believe
they hold the lock until the next `check`; so `check` before each part.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from types import TracebackType

from framefleet.cluster.holder import Holder, parse_holder, this_process
from framefleet.pipeline.errors import JobError, StoreConflict, StoreError
from framefleet.pipeline.outputs.store import Store

LOCK_PATH = "driver.lock"
BEAT_S = 10.0
_MAX_BYTES = 1 << 16  # it has some 300; of anything larger the beginning is enough to see it change
EXPIRY_S = 30.0  # three beats: one may be lost, one late

log = logging.getLogger(__name__)


class DriverLock:
    """Holds the output within a `with` block. Entering raises JobError when another driver writes there."""

    def __init__(
        self, store: Store, *, owner: str | None = None, beat_s: float = BEAT_S, expiry_s: float = EXPIRY_S
    ) -> None:
        self._store, self._beat_s, self._expiry_s = store, beat_s, expiry_s
        self._ours = this_process(owner or uuid.uuid4().hex)
        self._released = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="driver.lock", daemon=True)

    def __enter__(self) -> DriverLock:
        while not self._try_create():
            held = self._read()
            if held is not None:
                self._wait_until_abandoned(held)
                self._remove(held)
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._beating.join()
        try:
            if self.still_ours():
                self._store.delete(LOCK_PATH)
        except StoreError as failed:  # must not hide what ended the block; the next driver takes over
            log.warning("could not release %s: %s", self._store.url_of(LOCK_PATH), failed)

    def still_ours(self) -> bool:
        """Read the lock, and tell whether it still names this driver."""
        held = parse_holder(self._read() or b"")
        return held is not None and held.owner == self._ours.owner

    def check(self) -> None:
        """Raise StoreError if another driver has taken the output."""
        if not self.still_ours():
            raise StoreError(
                f"{self._store.url_of(LOCK_PATH)} is not ours any more: "
                "this driver was out of touch for too long",
                "if no other driver writes to this output, run the same command again",
            )

    def _read(self) -> bytes | None:
        try:
            return self._store.read(LOCK_PATH, _MAX_BYTES)
        except FileNotFoundError:
            return None

    def _try_create(self) -> bool:
        try:
            self._store.create(LOCK_PATH, self._ours.to_bytes())
        except StoreConflict:
            return False
        return self.still_ours()

    def _wait_until_abandoned(self, held: bytes) -> None:
        """Return when the driver that wrote `held` is surely gone; JobError if it is not."""
        holder = parse_holder(held)
        if holder is not None and not holder.runs_elsewhere():
            if holder.has_ended():
                return
            raise self._refusal(holder)
        log.warning(
            "%s: another driver was writing here; waiting up to %.0f s to see whether it still is",
            self._store.url_of(LOCK_PATH),
            self._expiry_s,
        )
        deadline = time.monotonic() + self._expiry_s
        while time.monotonic() < deadline:
            time.sleep(min(self._beat_s / 2, self._expiry_s / 10))
            now = self._read()
            if now is None:
                return
            if now != held:
                raise self._refusal(parse_holder(now))

    def _refusal(self, holder: Holder | None) -> JobError:
        who = f"pid {holder.pid} on {holder.host} since {holder.started_at}" if holder else "another driver"
        return JobError(
            f"{self._store.url_of('')} is being written by {who}",
            "wait for it to end, stop it, or choose another output",
        )

    def _remove(self, held: bytes) -> None:
        """Delete the lock, unless another driver was quicker."""
        if self._read() == held:
            self._store.delete(LOCK_PATH)

    def _beat(self) -> None:
        """Raise the counter until released; stop when the lock is another's, which `check` will find."""
        while not self._released.wait(self._beat_s):
            try:
                if not self.still_ours():
                    return
                self._ours = self._ours.next_beat()
                self._store.write(LOCK_PATH, self._ours.to_bytes())
            except StoreError as error:  # maybe back at the next beat; if not, writing a part will say so
                log.warning("could not renew %s: %s", self._store.url_of(LOCK_PATH), error)
