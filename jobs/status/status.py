"""In: an output. Out: how far it is, for Python and for `--watch`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from framefleet.cluster.driver.holder import parse_holder
from framefleet.cluster.driver.progress import AuditFigures, Progress, WorkerState
from framefleet.jobs.failures.failures import FailedRow, failed_rows_of, output_at
from framefleet.jobs.render.drafts_beside import drafts_of
from framefleet.jobs.status.driver import DriverSeen, DriverState, driver_of
from framefleet.pipeline.outputs.parts.part_file import read_part
from framefleet.pipeline.outputs.parts.part_names import parts_in
from framefleet.pipeline.outputs.parts.record_tables import record_tables
from framefleet.pipeline.outputs.parts.records import (
    FAILURE_FIELDS,
    FAILURES,
    INVALID,
    INVALID_FIELDS,
    RECORDS,
    fields_named,
)
from framefleet.pipeline.outputs.parts.seals import MAX_DRIVER_BYTES, epoch_path, epochs_of
from framefleet.pipeline.outputs.stores.store import Store

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

    num_rows: that its newest driver had to see to, distinct and valid ones, those done before too; None
    where none told. num_left: of these. rows_per_s: of the newest run. eta_s: None where none is at work, or
    it would be a guess. last_failures: the newest first. audits: what they say of rows done, in all runs;
    None where nothing is known. drafts: the same of its drafts, where there are any.
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
    return StatusReader(output_at(output, storage_options, may_be_drafts=True)).status()


class StatusReader:
    """Reads the status of one output again and again, and counts again only what has changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counted: dict[str, tuple[tuple[str, ...], int]] = {}  # by folder: its parts, their rows
        self._last: tuple[tuple[str, ...], tuple[FailedRow, ...]] = ((), ())
        self._drafts: StatusReader | None = None
        self._audits = AuditReader(store)

    def status(self) -> Status:
        driver = driver_of(self._store)
        told, is_at_work = driver.progress, driver.state in _AT_WORK
        num_rows = told.before + told.total if told else None
        if told and is_at_work:
            done, failed = told.before + told.done, told.failed
        else:
            done, failed = self._count(RECORDS), self._count(FAILURES)
        return Status(
            output=self._store.url_of(""),
            num_rows=num_rows,
            num_done=done,
            num_failed=failed,
            num_invalid=self._count(INVALID),
            num_left=None if num_rows is None else max(0, num_rows - done - failed),
            rows_per_s=told.rows_per_s if told else None,
            eta_s=told.eta_s if told and is_at_work else None,
            driver=driver,
            workers=told.workers if told and is_at_work else (),
            last_failures=self._last_failures(),
            audits=self._audits.figures(done),
            drafts=self._of_drafts(),
        )

    def _of_drafts(self) -> Status | None:
        if self._drafts is None and (drafts := drafts_of(self._store)):
            self._drafts = StatusReader(drafts)
        return self._drafts.status() if self._drafts else None

    def _count(self, folder: str) -> int:
        """Return how many rows the parts of a folder hold; read anew only if there are others."""
        paths = tuple(self._store.list(folder))
        if folder not in self._counted or self._counted[folder][0] != paths:
            self._counted[folder] = paths, _num_rows(self._store, folder)
        return self._counted[folder][1]

    def _last_failures(self) -> tuple[FailedRow, ...]:
        paths = tuple(self._store.list(FAILURES))
        if paths != self._last[0]:
            self._last = paths, tuple(islice(failed_rows_of(self._store), _LAST))
        return self._last[1]


def _num_rows(store: Store, folder: str) -> int:
    if folder == RECORDS:
        return sum(map(len, record_tables(store, ["row_id"])))
    fields = INVALID_FIELDS if folder == INVALID else FAILURE_FIELDS
    key = fields_named(fields, fields.names[0])  # row_index or row_id, by which rows are told apart
    found: set[Any] = set()
    for part in parts_in(store, folder):
        found.update(read_part(store, part.path, key).column(0).to_pylist())
    return len(found)


def _is_sound(told: Progress) -> bool:
    said = told.audits
    assert said is not None
    return all(0 <= n < _MOST for n in (told.done, said.num_equal, said.num_unaudited, said.most_wrong))
