"""In: an output. Out: how far it is, for Python and for `--watch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Generic, TypeVar

from framefleet.cluster.driver.holder import parse_holder
from framefleet.cluster.driver.progress import AuditFigures, Progress, WorkerState
from framefleet.jobs.look.status.driver import DriverSeen, DriverState, driver_of
from framefleet.pipeline.outputs.failed_rows import FailedRow, failed_rows
from framefleet.pipeline.outputs.layout import FAILURES, INVALID, RECORDS, ROWS
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.outputs.parts.seals import MAX_DRIVER_BYTES, epoch_path, epochs_of
from framefleet.pipeline.outputs.stores.store import Store

_Read = TypeVar("_Read")
_LAST = 3  # failures that are told; `framefleet failures` has all
_AT_WORK: tuple[DriverState, ...] = ("running", "silent")  # whose word counts
_MOST = 10**12  # rows that anybody may have: files are anybody's


class AuditReader:
    """Reads drivers' files again and again; those of earlier drivers, which do not change, once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._earlier: dict[int, Progress | None] = {}

    def figures(self, num_done: int) -> AuditFigures | None:
        """Return what audits say of all rows with a record; None where no driver said anything.

        num_done: these rows. Those that no driver spoke of, e.g. as it was killed, may all be wrong.
        """
        told = [one for one in self._told() if one.audits and _is_sound(one)]
        if not told:
            return None
        total = sum((one.audits for one in told if one.audits), AuditFigures())
        unknown = max(0, num_done - sum(one.done for one in told))
        return replace(
            total,
            num_unaudited=total.num_unaudited + unknown,
            most_wrong=min(total.most_wrong + unknown, num_done),
        )

    def _told(self) -> Iterator[Progress]:
        epochs = epochs_of(self._store)
        for epoch in epochs:
            if epoch not in self._earlier:
                found = self._read(epoch)
                if epoch != epochs[-1]:
                    self._earlier[epoch] = found
            else:
                found = self._earlier[epoch]
            if found:
                yield found

    def _read(self, epoch: int) -> Progress | None:
        try:
            holder = parse_holder(self._store.read(epoch_path(epoch), MAX_DRIVER_BYTES))
        except FileNotFoundError:
            return None
        return holder.progress if holder else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How far an output is.

    num_rows: of the table, distinct and valid ones; None where nobody wrote them down. num_done, num_failed
    and num_left add up to it. num_former: have a record, but are no longer in the table. rows_per_s: of the
    newest run. eta_s: None where no driver is at work, or it would be a guess. last_failures: the newest
    first. audits: of all rows with a record; None where nothing is known. drafts: the same of its drafts.
    """

    output: str
    num_rows: int | None
    num_done: int
    num_failed: int
    num_invalid: int
    num_left: int | None
    rows_per_s: float | None
    eta_s: float | None
    driver: DriverSeen
    workers: tuple[WorkerState, ...]
    last_failures: tuple[FailedRow, ...]
    num_former: int = 0
    audits: AuditFigures | None = None
    drafts: Status | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a driver is at work on it, or on its drafts."""
        return self.driver.state in _AT_WORK or bool(self.drafts and self.drafts.is_under_way)


def status(output: str, *, storage_options: Mapping[str, Any] | None = None) -> Status:
    """Return how far an output is, from anywhere: reads its files, and needs no cluster.

    While a driver renders, what it told last (at most some ten seconds ago); else what is counted in the
    output. Raises JobError where there is no output.
    """
    return StatusReader(Output.open(output, storage_options)).status()


class StatusReader:
    """Reads the status of one output again and again, and reads again only what has changed."""

    def __init__(self, output: Output) -> None:
        self._output, store = output, output.store
        self._counts = _Cached(store, (ROWS, RECORDS, FAILURES), output.counts)
        self._num_invalid = _Cached(store, (INVALID,), lambda: sum(map(len, output.invalid_rows())))
        self._last_failures = _Cached(
            store, (ROWS, RECORDS, FAILURES), lambda: tuple(islice(failed_rows(store), _LAST))
        )
        self._drafts: StatusReader | None = None
        self._audits = AuditReader(store)

    def status(self) -> Status:
        driver = driver_of(self._output.store)
        told, is_at_work = driver.progress, driver.state in _AT_WORK
        num_rows = told.before + told.total if told else None
        num_former = 0
        if told and is_at_work:
            done, failed = told.before + told.done, told.failed
        else:
            counts = self._counts.value()
            done, failed, num_former = counts.done, counts.failed, counts.former
            num_rows = num_rows if counts.rows is None else counts.rows
        return Status(
            output=self._output.url,
            num_rows=num_rows,
            num_done=done,
            num_failed=failed,
            num_invalid=self._num_invalid.value(),
            num_left=None if num_rows is None else max(0, num_rows - done - failed),
            rows_per_s=told.rows_per_s if told else None,
            eta_s=told.eta_s if told and is_at_work else None,
            driver=driver,
            workers=told.workers if told and is_at_work else (),
            last_failures=self._last_failures.value(),
            num_former=num_former,
            audits=self._audits.figures(done + num_former),
            drafts=self._of_drafts(),
        )

    def _of_drafts(self) -> Status | None:
        if self._drafts is None and (drafts := self._output.drafts):
            self._drafts = StatusReader(drafts)
        return self._drafts.status() if self._drafts else None


class _Cached(Generic[_Read]):
    """What is read of some folders, read again once a file of theirs has changed."""

    def __init__(self, store: Store, folders: tuple[str, ...], read: Callable[[], _Read]) -> None:
        self._store, self._folders, self._read = store, folders, read
        self._known: tuple[object, _Read] | None = None

    def value(self) -> _Read:
        seen = [self._store.details(folder) for folder in self._folders]
        if self._known is None or self._known[0] != seen:
            self._known = seen, self._read()
        return self._known[1]


def _is_sound(told: Progress) -> bool:
    said = told.audits
    assert said is not None
    return all(0 <= n < _MOST for n in (told.done, said.num_equal, said.num_unaudited, said.most_wrong))
