"""Read the progress of an output, from its driver while it runs, or else by counting rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import islice
from typing import Any, Generic, Literal, TypeVar

from framefleet.api.commands import Overview
from framefleet.api.errors import JobError
from framefleet.api.jobs import Progress, notes
from framefleet.api.outputs import FAILURES, RECORDS, ROWS, FailedRow, Output, Store
from framefleet.cluster.driver.commit import half_done_in
from framefleet.cluster.driver.lock import PAUSE, STOP, Holder, last_reports, requests_to
from framefleet.cluster.driver.progress import AuditFigures, WorkerState, num_rendering
from framefleet.pipeline.metrics import CLIP_BYTES, of_runs
from framefleet.pipeline.outputs.gone_clips import Gone, look_for_clips
from framefleet.pipeline.outputs.layout import INVALID
from framefleet.pipeline.outputs.parts.part_file import num_rows_of
from framefleet.pipeline.outputs.parts.seals import epochs_of, live_parts
from framefleet.pipeline.outputs.row_states import added_in, failed_rows
from framefleet.pipeline.outputs.stores.retries import OUTAGE_S

_Read = TypeVar("_Read")
_LAST = 3  # failures to show; `framefleet failures` lists all
_LOOK_EVERY_S = 60.0  # for missing clips, which takes some hundred requests
_MOST = 10**12  # more rows than any output has; files are not trusted

# running: it beats. silent: no beat for a long time, or the clocks differ. gone: its process ended without
# giving back the output. ended: it gave back the output. unknown: its file cannot be read. none: no driver.
DriverState = Literal["running", "silent", "gone", "ended", "unknown", "none"]
SILENT_S = 60.0  # six beats; machines' clocks usually differ by seconds
# A driver ends if it cannot reach its output for OUTAGE_S, so one that is silent for longer was killed.
_KILLED_S = 2 * OUTAGE_S


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DriverSeen(Overview):
    """The newest driver of an output."""

    state: DriverState
    epoch: int = 0
    pid: int = 0
    host: str = ""
    started_at: str = ""
    told_s: float | None = None  # seconds since its last report, if known
    error: str = ""  # that ended it
    progress: Progress | None = None  # its last report
    tables: tuple[str, ...] = ()  # files of added rows that it has taken
    takes_added: bool = True  # False if it renders no rows, or only rows that were chosen before
    can_pause: bool = False  # False if it renders no table, e.g. while it trains, repairs or writes prompts

    def overview(self) -> Mapping[str, object]:
        return {
            "state": self.state,
            "process": f"{self.pid} on {self.host}, since {self.started_at}" if self.epoch else None,
            "heard": None if self.told_s is None else f"{self.told_s:.0f} s ago",
            "error": self.error or None,
        }

    @property
    def is_at_work(self) -> bool:
        """Whether its reports count."""
        return self.state in ("running", "silent")


def driver_of(store: Store, *, now: datetime | None = None) -> DriverSeen:
    """Return the newest driver of an output. now: for tests.

    Skips drivers that only repaired or merged and are gone, as an earlier one has rendered the rows.
    """
    newest: DriverSeen | None = None
    for epoch in reversed(epochs_of(store)):
        holder = Holder.read(store, epoch)
        if holder is None:
            return newest or DriverSeen(state="unknown", epoch=epoch)
        driver = _driver_at(epoch, holder, now, is_newest=newest is None)
        if holder.renders or driver.is_at_work:
            return driver
        newest = newest or driver
    return newest or DriverSeen(state="none")


def _driver_at(epoch: int, holder: Holder, now: datetime | None, *, is_newest: bool) -> DriverSeen:
    told_s: float | None = None
    with suppress(ValueError, TypeError):  # files are not trusted
        since = (now or datetime.now(UTC)) - datetime.fromisoformat(holder.beat_at)
        told_s = max(0.0, since.total_seconds())
    state: DriverState = "running"
    if holder.ended or holder.is_gone() or not is_newest:
        state = "ended" if holder.ended else "gone"
    elif told_s and told_s > SILENT_S:
        state = "silent"
    same = ("pid", "host", "started_at", "error", "progress", "tables", "can_pause")
    return DriverSeen(
        state=state,
        epoch=epoch,
        told_s=told_s,
        takes_added=holder.renders and not holder.is_partial,
        **{name: getattr(holder, name) for name in same},
    )


def _audit_figures(store: Store, num_done: int) -> AuditFigures | None:
    """Return the audits' result for all rows with a record; None if no driver reported any.

    num_done: number of these rows. Rows that no driver reported, e.g. of a killed driver, may all be wrong.
    """
    reports = [one for one in last_reports(store) if one.audits and _are_possible(one.done, one.audits)]
    if not reports:
        return None
    total = sum((one.audits for one in reports if one.audits), AuditFigures())
    unknown = max(0, num_done - sum(one.done for one in reports))
    return replace(
        total,
        num_unaudited=total.num_unaudited + unknown,
        most_wrong=min(total.most_wrong + unknown, num_done),
    )


def _are_possible(num_done: int, audits: AuditFigures) -> bool:
    """Whether these counts are possible."""
    counts = (num_done, audits.num_equal, audits.num_unaudited, audits.most_wrong)
    return all(0 <= count < _MOST for count in counts)


def figures_of(store: Store) -> dict[str, float]:
    """Return the metrics that all drivers of an output reported. Files are not trusted."""
    figures = (report.figures for report in last_reports(store))
    return of_runs(*filter(_are_sound, figures))


def _are_sound(figures: Mapping[str, float]) -> bool:
    return all(
        math.isfinite(figure) and (figure >= 0 or key == CLIP_BYTES.key())  # negative if rows were removed
        for key, figure in figures.items()
    )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Status(Overview):
    """Progress of an output. num_done, num_failed and num_left add up to num_rows."""

    output: str
    # Distinct valid rows of the table, and rows added since it was last read; None if not recorded.
    num_rows: int | None
    num_done: int
    num_failed: int
    num_invalid: int
    num_left: int | None
    num_added: int  # of these, rows that no run has read yet: it leaves out those that the table has
    rows_per_s: float | None  # of the newest run
    eta_s: float | None  # None if no driver is at work, or if it would be a guess
    driver: DriverSeen
    workers: tuple[WorkerState, ...]
    last_failures: tuple[FailedRow, ...]  # the newest first
    num_former: int = 0  # rows that have a record, but are no longer in the table
    audits: AuditFigures | None = None  # for all rows with a record; None if not known
    paused_since: str = ""  # "" if the job is not paused
    num_half_done: int = 0  # rows left that have a checkpoint, while nothing renders
    figures: Mapping[str, float] = field(default_factory=dict)  # of the newest run, as in `Summary`
    inner: Mapping[str, Status] = field(default_factory=dict)  # of inner outputs, by name
    notes: tuple[str, ...] = ()  # also from plugins
    gone: Gone | None = None  # missing clips of finished rows, from a quick check while no driver is running
    over_budget: str | None = None  # message, if the budget ended the newest run
    to_continue: str | None = None  # what to do then

    def overview(self) -> Mapping[str, object]:
        of = "" if self.num_rows is None else f" of {self.num_rows:,}"
        left = "" if self.num_left is None else f", {self.num_left:,} {self.left_text}"
        left += f"; {self.num_former:,} more are no longer in the table" if self.num_former else ""
        return {
            "output": self.output,
            "rows": f"{self.num_done:,}{of} done, {self.num_failed:,} failed{left}",
            "rate": None
            if self.rows_per_s is None or not self.is_moving
            else f"{self.rows_per_s:.2f} rows/s",
            "time left": None if self.eta_s is None else timedelta(seconds=round(self.eta_s)),
            "driver": self.driver.state
            + (f", paused since {self.paused_since}" if self.paused_since else ""),
            "workers": f"{num_rendering(self.workers)} rendering" if self.workers else None,
            "budget": self.over_budget,
            "error": self.driver.error or None,
            "last failure": self.last_failures[0].message if self.last_failures else None,
        }

    @property
    def left_text(self) -> str:
        """What rows left are, after their number."""
        about = {"of them half-done": self.num_half_done}
        about |= {"added, and not yet compared with the table": self.num_added}
        known = ", ".join(f"{count:,} {what}" for what, count in about.items() if count)
        return f"left ({known})" if known else "left"

    @property
    def is_moving(self) -> bool:
        """Whether its driver is running, and not paused."""
        return self.driver.is_at_work and not self.paused_since

    @property
    def is_under_way(self) -> bool:
        """Whether it or an inner output has a running driver that was not silent for 20 minutes."""
        is_own = self.driver.is_at_work and (self.driver.told_s or 0.0) < _KILLED_S
        return is_own or any(one.is_under_way for one in self.inner.values())

    @property
    def is_rendered(self) -> bool:
        """Whether it or an inner output has a running driver that is neither silent nor paused."""
        is_own = self.driver.state == "running" and not self.paused_since
        return is_own or any(one.is_rendered for one in self.inner.values())

    @property
    def needs_attention(self) -> bool:
        """Whether rows failed, clips are missing, nothing renders rows left, or the last run broke off."""
        outputs = (self, *self.inner.values())
        is_stopped = any(one.num_left or one._is_broken_off for one in outputs) and not self.is_rendered
        return is_stopped or any(one.num_failed or one.gone for one in outputs)

    @property
    def _is_broken_off(self) -> bool:
        """Whether its newest run was killed or failed, or no run has reached its rows."""
        if self.driver.error or self.driver.state in ("silent", "gone"):
            return True
        # An earlier stage, e.g. drafts or prompts, may have just ended.
        before = [one.driver for one in (self, *self.inner.values()) if one.driver.epoch]
        has_rows = self.num_rows is not None or self.num_done > 0
        return not has_rows and bool(before) and all((one.told_s or 0.0) > _KILLED_S for one in before)


def status(output: str, *, storage_options: Mapping[str, Any] | None = None) -> Status:
    """Return the progress of an output. Only reads its files, from anywhere, and needs no cluster.

    While a driver renders the whole table, this is its last report, about ten seconds old at most; else the
    output's rows are counted. Raises JobError if there is no output.
    """
    return StatusReader(Output.open(output, storage_options)).status()


class StatusReader:
    """Reads the status of one output repeatedly. Only reads files again that have changed."""

    def __init__(self, output: Output) -> None:
        self._output, store = output, output.store
        self._counts = _Cached(store, (ROWS, RECORDS, FAILURES), output.counts)
        self._num_invalid = _Cached(store, (INVALID,), lambda: sum(map(len, output.invalid_rows())))
        self._last_failures = _Cached(
            store, (ROWS, RECORDS, FAILURES), lambda: tuple(islice(failed_rows(store), _LAST))
        )
        self._inner: dict[str, StatusReader] = {}
        self._gone: tuple[list[str], float, Gone | None] | None = None  # last check: parts, time, result
        self._taken: set[str] = set()  # files of added rows that a driver has read
        self._num_rows_in = cache(partial(_num_rows, store))

    def status(self) -> Status:
        if not self._inner:  # inner outputs stay once they exist
            self._inner = {name: StatusReader(one) for name, one in self._output.inner.items()}
        driver = driver_of(self._output.store)
        report, is_at_work = driver.progress, driver.is_at_work
        num_rows = report.before + report.total if report else None
        num_former = num_begun = 0
        if report and is_at_work and driver.takes_added:  # else its report lacks other rows
            done, failed = report.before + report.done, report.failed
        else:
            counts = self._counts.value()
            done, failed, num_former = counts.done, counts.failed, counts.former
            num_rows = num_rows if counts.rows is None else counts.rows
        paused_since = report.paused_since if report and is_at_work else ""
        if paused_since or not is_at_work:
            num_begun = sum(1 for _ in half_done_in(self._output.store))
        num_added = 0 if num_rows is None else self._num_added()
        if num_rows is not None:
            num_rows += num_added
        gone = None if is_at_work else self._look_for_clips(done + num_former)
        num_left = None if num_rows is None else max(0, num_rows - done - failed)
        return Status(
            output=self._output.url,
            num_rows=num_rows,
            num_done=done,
            num_failed=failed,
            num_invalid=self._num_invalid.value(),
            num_left=num_left,
            num_added=min(num_added, num_left or 0),
            rows_per_s=report.rows_per_s if report else None,
            eta_s=report.eta_s if report and is_at_work else None,
            driver=driver,
            workers=report.workers if report and is_at_work else (),
            last_failures=self._last_failures.value(),
            num_former=num_former,
            audits=_audit_figures(self._output.store, done + num_former),
            paused_since=paused_since,
            num_half_done=min(num_begun, num_left or 0),
            figures=report.figures if report and _are_sound(report.figures) else {},
            inner={name: reader.status() for name, reader in self._inner.items()},
            notes=(*_awaited(self._output.store, driver), *notes(self._output.store)),
            gone=gone,
            over_budget=report.over_budget if report and not is_at_work else None,
            to_continue=report.to_continue if report and not is_at_work else None,
        )

    def _num_added(self) -> int:
        """Return the number of added rows that no driver has taken."""
        store = self._output.store
        if waiting := {*added_in(store)} - self._taken:
            holders = filter(None, (Holder.read(store, epoch) for epoch in epochs_of(store)))
            self._taken.update(*(holder.tables for holder in holders))
        return sum(map(self._num_rows_in, waiting - self._taken))

    def _look_for_clips(self, num_records: int) -> Gone | None:
        store = self._output.store
        parts, now = [part.path for part in live_parts(store)], time.monotonic()
        if self._gone is None or self._gone[0] != parts or now - self._gone[1] > _LOOK_EVERY_S:
            self._gone = parts, now, look_for_clips(store, parts, num_records=num_records)
        return self._gone[2]


def _awaited(store: Store, driver: DriverSeen) -> Iterator[str]:
    """Yield what a driver at work was asked for and has not done yet."""
    requests = requests_to(store, driver.epoch) if driver.is_at_work else frozenset()
    is_paused = bool(driver.progress and driver.progress.paused_since)
    if STOP in requests:
        yield "asked to stop"
    elif driver.is_at_work and is_paused != (PAUSE in requests):
        yield "asked to resume" if is_paused else "asked to pause"


def _num_rows(store: Store, path: str) -> int:
    try:
        return num_rows_of(store, path)
    except JobError:  # the next run reports it
        return 0


class _Cached(Generic[_Read]):
    """A value read from some folders, and read again when a file in them has changed."""

    def __init__(self, store: Store, folders: tuple[str, ...], read: Callable[[], _Read]) -> None:
        self._store, self._folders, self._read = store, folders, read
        self._known: tuple[object, _Read] | None = None

    def value(self) -> _Read:
        seen = [self._store.details(folder) for folder in self._folders]
        if self._known is None or self._known[0] != seen:
            self._known = seen, self._read()
        return self._known[1]
