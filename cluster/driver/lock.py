"""In: the store of one output. Out: the right to write there, held by one driver at a time.

Each driver that takes an output over has an epoch, and a file `drivers/<epoch>.json`. What a replaced driver
still writes after a `check` does not count: see `outputs/parts/seals.py`.

Before a new driver reads anything else, it finishes what others left and deletes what does not count: parts
that were replaced, merged or late, and weights of a fleet that is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from framefleet.cluster.driver.epoch_lock import BEAT_S, EXPIRY_S, EpochLock, Writer
from framefleet.cluster.driver.progress import AuditFigures, Progress
from framefleet.pipeline.errors import JobError, OutputInUse, command, escaped
from framefleet.pipeline.guards.redaction import public_message
from framefleet.pipeline.metrics import of_runs
from framefleet.pipeline.outputs.layout import DRIVERS, RECORDS, TABLES, WEIGHTS
from framefleet.pipeline.outputs.parts import seals
from framefleet.pipeline.outputs.parts.parts import finish_replacing
from framefleet.pipeline.outputs.stores.store import Store, sweep_in_background

MAX_WORKERS_TOLD = 1000  # a hundred kilobytes; the lock depends on a file that can be read


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder(Writer):
    """One driver: a process on a machine, and what its file says about the output."""

    folder: ClassVar[str] = DRIVERS

    left_nothing: bool = False  # it has ended, and finished all that it began
    error: str = ""  # that ended it, without secrets
    sealed: seals.Sealed | None = None  # parts of earlier epochs that count, see `outputs/parts/seals.py`
    merged: seals.Sealed = field(default_factory=dict)  # parts whose rows are in larger ones now
    # Of each run of such larger parts, how many count.
    merges: Mapping[str, int] = field(default_factory=dict)
    progress: Progress | None = None  # at its last beat, for those who read the output from elsewhere
    tables: tuple[str, ...] = ()  # of added rows, which it has taken: its answer to `add`
    is_partial: bool = False  # it renders only some rows, e.g. with `--limit`, and none that are added
    can_pause: bool = False  # it obeys PAUSE


STOP, PAUSE = ASKED = ("stop", "pause")  # requests to a driver, by `framefleet stop` and so on

log = logging.getLogger(__name__)


def told_of(progress: Progress, earlier: Progress | None = None) -> Progress:
    """Return what a driver's file says, without texts of others, which not every reader can read.

    earlier: what it said about rows that this driver rendered before these; counts are of both together.
    """
    workers = progress.workers[:MAX_WORKERS_TOLD]
    shown = replace(progress, workers=workers, last_failure=None, waiting_for=None, unused=())
    if earlier is None:
        return shown
    names = ("total", "done", "failed", "elapsed_s")
    sums: dict[str, Any] = {name: getattr(earlier, name) + getattr(progress, name) for name in names}
    audits = AuditFigures.of_runs(earlier, progress)
    return replace(shown, **sums, audits=audits, figures=of_runs(earlier.figures, progress.figures))


def newest_holder(store: Store) -> Holder | None:
    """Return who has the output, or had it last."""
    return Holder.read(store, max(seals.epochs_of(store), default=0))


def last_reports(store: Store) -> list[Progress]:
    """Return the last report of each driver, if it can be read: files may come from anybody."""
    holders = (Holder.read(store, epoch) for epoch in seals.epochs_of(store))
    return [holder.progress for holder in holders if holder and holder.progress]


def in_use(output: str, holder: Holder | None) -> JobError:
    """Return the error for an output that another driver writes to."""
    kind = OutputInUse if holder and holder.renders else JobError
    return kind(
        f"{output} is being written by {holder or 'another driver'}",
        f"wait for it to end, or stop it ({command('stop', output)})",
    )


def requests_to(store: Store, epoch: int) -> frozenset[str]:
    """Return the requests to the driver of an epoch: STOP, PAUSE."""
    files = set(store.list(DRIVERS))
    return frozenset(request for request in ASKED if seals.request_path(epoch, request) in files)


def check_not_stopped(store: Store, epoch: int, state: str) -> frozenset[str]:
    """Raise KeyboardInterrupt if the driver of an epoch was asked to end, even after its last beat.

    The same command may start another driver next, with its own epoch. state: what is done, for people.
    Returns its other requests.
    """
    requests = requests_to(store, epoch)
    _raise_if_stopped(requests, state)
    return requests


def _raise_if_stopped(requests: Collection[str], state: str) -> None:
    if STOP in requests:
        log.warning("asked to end by `framefleet stop`%s", state)
        raise KeyboardInterrupt


class DriverLock(EpochLock[Holder]):
    """Holds the output within a `with` block. Entering raises JobError if another driver writes there."""

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
        """renders: it renders a job, whose end `status` shows. can_pause: it obeys PAUSE."""
        ours = Holder.here(owner, renders=renders, can_pause=can_pause)
        super().__init__(store, ours, beat_s=beat_s, expiry_s=expiry_s)
        self._told: Progress | None = None
        self._told_before: Progress | None = None
        self.asked: frozenset[str] = frozenset()  # requests to this driver at the last beat: STOP, PAUSE
        self.num_tables = 0  # in tables/, where rows are added

    def _begin(self) -> None:
        self.seal()  # before the first beat: a late beat must not take the seal back
        super()._begin()  # before anything is deleted, which may take longer than EXPIRY_S
        if finish_replacing(self._store, self, self._unfinished()):
            self.seal()  # these parts are gone, but that is not damage
        seals.sweep_late(self._store, self)
        self._store.delete_all(WEIGHTS)
        sweep_in_background(self._store)

    def _end(self, error: BaseException | None) -> None:
        own = (part for part in seals.live_parts(self._store) if part.epoch == self.epoch)
        sealed = seals.sealed_of(own, self._ours.sealed)
        reason = ""
        if self._ours.renders and isinstance(error, Exception):  # else it was interrupted
            problem = public_message(error).partition("\nhint: ")[0]
            reason = escaped(f"{type(error).__name__}: {problem}")
        self._write(ended=True, left_nothing=error is None, sealed=sealed, error=reason)

    def _unfinished(self) -> set[int]:
        """Return the epochs since the last driver that finished everything it began."""
        epochs = set[int]()
        for epoch in reversed([epoch for epoch in seals.epochs_of(self._store) if epoch < self.epoch]):
            holder = Holder.read(self._store, epoch)
            if holder and holder.left_nothing:
                break
            epochs.add(epoch)
        return epochs

    def still_ours(self) -> bool:
        """Return whether the newest epoch is this driver's."""
        if max(seals.epochs_of(self._store), default=0) > self.epoch:  # a listing may lag, and lack our own
            return False
        holder = Holder.read(self._store, self.epoch)
        return holder is not None and holder.owner == self._ours.owner

    def seal(self) -> None:
        """Write down which parts of earlier epochs are there. Call again after replacing some."""
        earlier = (part for part in seals.live_parts(self._store) if 0 < part.epoch < self.epoch)
        self._write(sealed=seals.sealed_of(earlier))

    def merged(self, parts: Iterable[seals.Part], *, run: str, count: int) -> None:
        """Let the first `count` parts of a run count, no others of it, and none of `parts`."""
        with self._writing:
            merged = seals.sealed_of(parts, self._ours.merged)
            self._ours = replace(self._ours, merged=merged, merges={**self._ours.merges, run: count})
        self._write()  # if that fails, the next beat writes it

    def check_not_stopped(self) -> None:
        """Raise KeyboardInterrupt if this driver was asked to end before it has workers. Makes no request."""
        _raise_if_stopped(self.asked, ", before the first row")

    def forget_errors(self) -> int:
        """Remove the errors of earlier drivers from their files; return how many had one."""
        earlier = (epoch for epoch in seals.epochs_of(self._store) if epoch != self.epoch)
        holders = {epoch: Holder.read(self._store, epoch) for epoch in earlier}
        failed = {epoch: holder for epoch, holder in holders.items() if holder and holder.error}
        for epoch, holder in failed.items():
            self._store.write(seals.epoch_path(epoch), replace(holder, error="").to_bytes())
        return len(failed)

    def tell(self, progress: Progress) -> None:
        """Let the next beat write the job's progress; returns at once."""
        self._told = told_of(progress, self._told_before)

    def tell_more(self) -> None:
        """Add progress that is reported from now on, about other rows, to what was reported so far."""
        self._told_before = self._told

    def promise(self, tables: Iterable[str], *, is_partial: bool = False) -> None:
        """Note in this driver's file that rows/ has these rows, for those who added them and wait.

        tables: files of added rows, which were read. They are rendered before this driver ends, unless the
        run is partial.
        """
        with self._writing:
            before, tables = self._ours, sorted({*self._ours.tables, *tables})
            self._ours = replace(before, tables=tuple(tables), is_partial=is_partial)
        if self._ours != before:
            self._write()

    def _take_next(self) -> bool:
        """Wait until the newest driver is gone, and try to be the next; return whether it worked."""
        # If somebody has cleared drivers/, parts still have the number of the newest epoch.
        newest = max(seals.epochs_of(self._store), default=0) or max(
            (part.epoch for part in seals.parts_in(self._store, RECORDS)), default=0
        )
        self._wait_until_abandoned(newest)
        return self._create(newest + 1)

    def _refusal(self, holder: Holder | None) -> JobError:
        return in_use(self._store.url_of(""), holder)

    def _look(self) -> None:
        self.asked = requests_to(self._store, self.epoch)
        self.num_tables = len(self._store.list(TABLES))

    def _write(self, **changed: Any) -> None:
        super()._write(progress=self._told, **changed)
