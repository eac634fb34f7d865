"""The one process that decides: joins table, dispatcher, fleet and commits, until every row has ended."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Literal

from framefleet.cluster.dispatch.dispatcher import GivenUp
from framefleet.cluster.dispatch.faults import LostRows
from framefleet.cluster.driver.audits import Audits
from framefleet.cluster.driver.commit import Committer, HalfDoneRows
from framefleet.cluster.driver.epoch_lock import moment
from framefleet.cluster.driver.feed import Pending
from framefleet.cluster.driver.lanes import Lane, Lanes
from framefleet.cluster.driver.lock import PAUSE, STOP
from framefleet.cluster.driver.progress import Progress, Summary
from framefleet.cluster.driver.run import Run
from framefleet.cluster.driver.stop import BudgetLimit, Stop
from framefleet.cluster.driver.tally import Scale, Tally
from framefleet.cluster.fleet import events
from framefleet.cluster.fleet.fleet import Fleet
from framefleet.cluster.fleet.losses import Cause, Storing, cause_to_end
from framefleet.cluster.worker.messages import Assignment, Failed, StoredRow, WorkerReport
from framefleet.pipeline import errors
from framefleet.pipeline.errors import count_text
from framefleet.pipeline.metrics import FAILED_BY_TYPE, ROW_RETRIES, SAVED_CHECKPOINTS, SPENT_MONEY, added
from framefleet.pipeline.model.environment import device_name

if TYPE_CHECKING:
    from framefleet.pipeline.engine import Halted

log = logging.getLogger(__name__)

# Often enough to commit in time and to show progress, rare enough to cost nothing.
WAIT_S = 0.5
# Between two looks at the records for what else to render, while workers have rows: parts are as frequent.
_EXTEND_S = 5.0
_REPORT_EVERY_S = 5.0  # while it waits for workers that hand back their rows


class Driver:
    """Renders the pending rows of one job."""

    def __init__(
        self, run: Run, *, on_progress: Callable[[Progress], None], stop: Stop | None = None
    ) -> None:
        """stop: whether to end before everything is done."""
        self._run = run
        self._stop = stop or Stop()
        self._on_progress = on_progress
        self._lanes = Lanes(run, self._adopts)
        self._pending = self._lanes.pending
        counts = run.index.counts()
        sections = {column.name: column.section for column in run.columns}
        self._tally = Tally(counts.pending, before=counts.done, now=time.monotonic(), sections=sections)
        self._committer = Committer(run)
        are_paid = any(setup.model.engine for setup in run.setups.values())
        self._checkpoints = HalfDoneRows(run.store, is_whole=run.index.is_whole, are_paid=are_paid)
        self._audits = Audits(run, self._committer, self._checkpoints, self._lanes.reopen, self._tally)
        self._storing = Storing()
        self._leaving: set[str] = set()  # workers that must hand back their rows
        self._faulty: dict[str, Cause] = {}  # of these, those that must end although we would keep them
        self._handed_back: dict[str, set[str]] = defaultdict(set)  # by these: rows, theirs until they end
        self._spoiled: set[str] = set()  # workers that leave, and whose rows are rendered again elsewhere
        elastic = run.fleet.elastic
        self._scale = Scale(elastic) if elastic else None
        self._device_name = run.device_name
        self._has_failed = False
        self._over_budget: BudgetLimit | Literal["stop_at"] | None = None
        self._halt: Halted | None = None  # of an engine
        self._num_tables = 0
        self._has_more = False  # more rows, for which there may be too few workers
        self._extension = _Extension()
        self._listened_at = 0.0

    def run(self, fleet: Fleet) -> Summary:
        """Render until every row has a record or is given up, `stop` is asked, or the budget is spent.

        Raises FramefleetError if it cannot continue. Whatever ends it, rows that are done are committed.
        """
        fleet.next_lane, fleet.lanes_left = self._lanes.next_lane, self._lanes.left
        fleet.grow(self._run.index.counts().pending)
        try:
            self._checkpoints.find(self._run.index.is_pending)
            self._lanes.fill()
            while not self._is_ending:
                if self._lanes.finished:
                    self._take_added(fleet)  # a last look for rows that were added
                    self._lanes.fill()
                if self._lanes.finished:
                    break
                self._turn(fleet)
                self._lanes.fill()
            if self._is_ending:
                self._drain(fleet)
                if self._halt and (failure := self._halt.error):
                    raise failure
            elif error := self._lanes.error():
                raise error
        except errors.UserError:  # of the table, or of one machine: the other workers and the store are well
            self._has_failed = True
            self._drain(fleet)
            raise
        finally:
            self._close()
            progress = self._ended(self._progress())
            self._run.lock.tell(progress)
        self._on_progress(progress)  # so that what is scraped now equals the summary
        summary = self._tally.summary(progress)
        if self._is_ending:
            half_done = count_text(len(self._checkpoints), "half-done row")
            log.warning("stopped: %s and %s are saved", count_text(summary.done, "finished row"), half_done)
        return summary

    def _ended(self, progress: Progress) -> Progress:
        """Return the last progress, with a message if the budget ended the run."""
        if self._halt and self._halt.why == "spent":
            return replace(progress, over_budget=self._halt.problem, to_continue=self._halt.fix)
        if self._over_budget is None:
            return progress
        num_left = progress.total - progress.done
        num_done = progress.before + progress.done
        overrun = self._run.overrun(self._over_budget, progress.spent, num_done=num_done, num_left=num_left)
        return replace(progress, over_budget=overrun.message, to_continue=overrun.to_continue)

    def _close(self) -> None:
        """Commit what is done, whatever ended the run; then end what runs in the background."""
        if self._stop.is_urgent:
            log.warning("storing the records of rows that finished; Ctrl-C leaves without them")
        has_ended, is_complete = self._lanes.finished and self._lanes.error() is None, False
        try:
            self._committer.close()
            is_complete = has_ended  # only now: another driver may have the output, with its own checkpoints
        finally:
            self._checkpoints.close(is_complete=is_complete)

    @property
    def _is_ending(self) -> bool:
        """Whether all workers must hand back their rows."""
        is_spent = self._over_budget is not None or self._halt is not None
        return self._stop.is_asked or self._has_failed or is_spent

    def _turn(self, fleet: Fleet) -> None:
        progress = self._listen(fleet, WAIT_S)
        if not (self._is_ending or self._lanes.finished):
            is_due = self._run.is_extended and self._extension.is_due(progress, self._lanes)
            if is_due or self._num_tables != self._run.lock.num_tables:
                self._take_added(fleet)

    def _listen(self, fleet: Fleet, wait_s: float) -> Progress:
        """Follow what happens, give workers rows that wait, and return the progress."""
        arrived = fleet.wait(wait_s)
        self._run.lock.check_seen()
        self._heed_requests(fleet)
        self._lanes.expect(fleet.num_serving())
        for event in arrived:
            self._follow(event, fleet)
        self._committer.flush_due(time.monotonic())
        self._tally.unused = fleet.unused
        progress = self._progress()
        self._run.lock.tell(progress)
        fleet.publish(progress.figures)
        if self._scale and not (self._is_ending or self._tally.is_paused):
            fleet.resize(self._scale.wanted(progress))
        self._on_progress(progress)
        if not (self._is_ending or self._lanes.finished):
            now = datetime.now().astimezone()
            self._over_budget = self._run.over_budget(progress.spent, now=now)
        self._listened_at = time.monotonic()
        return progress

    def _listen_meanwhile(self, fleet: Fleet) -> None:
        """Go on while rows that were added are checked. Raises _CutShort if the run ends."""
        if time.monotonic() - self._listened_at < WAIT_S:
            return
        try:
            self._listen(fleet, 0.0)
            self._lanes.fill()
        except errors.TableError as error:  # not of the rows that are checked
            raise _CutShort from error
        if self._is_ending:
            raise _CutShort

    def _heed_requests(self, fleet: Fleet) -> None:
        """Do what others ask for through the output: stop, pause or resume."""
        requests = self._run.lock.asked
        if STOP in requests and not self._stop.is_asked:
            log.warning("asked to end by `framefleet stop`: workers hand back their rows")
            self._stop.ask()
        if self._has_more:
            self._has_more = False
            fleet.grow(self._tally.num_left)
        is_paused = PAUSE in requests
        if is_paused == self._tally.is_paused or self._is_ending:
            return
        if is_paused:
            log.warning("paused by `framefleet pause`: workers hand back their rows and end")
            self._tally.pause(moment(), now=time.monotonic())
        else:
            log.warning("resumed: workers start again")
            self._tally.resume(now=time.monotonic())
        fleet.resize(0 if is_paused else None)

    def _progress(self) -> Progress:
        progress = self._tally.progress(time.monotonic(), self._lanes.in_hand())
        figures = added(progress.figures, self._run.store.counts.figures())
        if (cost := self._run.cost(progress.spent)) is not None:
            figures[SPENT_MONEY.key()] = cost
        return replace(progress, audits=self._audits.figures(), figures=figures)

    def _drain(self, fleet: Fleet) -> None:
        """Make all workers hand back their rows, until the limit has passed or Ctrl-C came again."""
        fleet.resize(0)
        limit_s = self._run.retries.drain_s
        began = reported = time.monotonic()
        if left := self._lanes.in_hand():
            again = "" if STOP in self._run.lock.asked else " again" if self._stop.is_asked else " twice"
            log.warning(
                "stopping: workers hand back %s, at most %.0f s%s",
                count_text(sum(left.values()), "row"),
                limit_s,
                f"; press Ctrl-C{again} to stop at once" if self._stop.can_be_urgent else "",
            )
        while left and not self._stop.is_urgent and (now := time.monotonic()) - began < limit_s:
            if now - reported >= _REPORT_EVERY_S:
                reported = now
                waiting = ", ".join(f"{worker} ({rows})" for worker, rows in left.items())
                log.warning("waiting for the rows of %s, for %.0f s so far", waiting, now - began)
            self._turn(fleet)
            left = self._lanes.in_hand()
        if left:
            log.warning("stopping; rows that were not saved in time: %s", sum(left.values()))

    def _take_added(self, fleet: Fleet) -> None:
        """Take rows that were added; if that depends on records, write all records first."""
        self._num_tables = self._run.lock.num_tables
        if self._run.is_extended:
            self._committer.flush()
        num_needed, heed = self._extension.num_needed(self._lanes), partial(self._listen_meanwhile, fleet)
        try:
            for more in self._lanes.take_added(num_needed, heed):
                level = logging.INFO if self._run.is_extended else logging.WARNING
                log.log(level, "rows added to the table, to be rendered after it: %s", more.num_new)
                self._tally.added(more.num_new, num_done=more.num_done)
                fleet.open({key: lane.setup for key, lane in more.lanes.items()})
                self._has_more = True
        except _CutShort as cut_short:  # these rows are left to the next run
            if cut_short.__cause__:
                raise cut_short.__cause__ from None

    def _adopts(self, row_id: str, pending: Pending) -> bool:
        """Commit a row whose clip an earlier run finished; return whether there is such a clip."""
        stored = self._run.adoption.take(row_id, pending.request)
        if stored is None:
            may_spoil = self._lanes[pending.lane].may_spoil
            self._audits.choose(row_id, pending.kind, may_spoil=may_spoil)
            return False
        record = self._audits.adopted(stored, pending.kind)
        self._committer.done(record, pending, worker=record.worker, added=stored.added)
        self._committer.flush_due(time.monotonic())
        self._tally.adopted(record.bytes)
        return True

    def _follow(self, event: events.Event, fleet: Fleet) -> None:
        cause: Cause | None
        match event:
            case events.Lost():
                return self._lose(event, fleet)
            case events.LaneLost():
                return self._lose_lane(event)
            case events.Starting():
                self._tally.waiting_for = event.doing
                return
            case events.Leaving():
                cause = Cause(reason="its machine will go soon", kind="gone", suspects=(), is_able=True)
                return self._leave(event.worker, cause.reason, cause)
            case events.Ready():
                self._tally.waiting_for = None
                lane = self._lanes.join(event.worker, event.lane, load_s=event.load_s)
                cause = self._refused(event, lane)
                if cause is None:
                    hello = event.hello
                    lane.dispatcher.join(event.worker, at=event.at, room=hello.room, is_new=not hello.has_run)
                    self._tally.joined(event.worker, event.hello.node, str(event.lane))
            case events.Reported():
                # An error as on a broken machine is the row's fault if the machine still renders others.
                is_rows_own = self._lanes.of(event.worker).dispatcher.is_rows_own
                failed = tuple(
                    replace(failure, blame="row")
                    if failure.blame == "host" and is_rows_own(event.worker, failure.row_id)
                    else failure
                    for failure in event.report.failed
                )
                report = replace(event.report, failed=failed)
                self._take(event.worker, report, fleet)
                cause = self._sick(event.worker, report)
        if cause and cause.is_able:
            self._leave(event.worker, cause.reason, cause)
            cause = None
        if cause is None:
            self._go_on(event.worker, fleet)
        else:
            self._lose(fleet.end(event.worker, cause), fleet)

    def _go_on(self, worker: str, fleet: Fleet) -> None:
        """Give a worker more rows; one that must leave hands back its rows first.

        A worker without rows leaves too if there are more workers than the rows left need, or if another lane
        needs one more.
        """
        own = self._lanes.of(worker)
        is_going = self._is_ending or self._tally.is_paused or worker in self._leaving
        assignments = [] if is_going else self._assignments(worker)
        has_rows = bool({*own.dispatcher.rows_of(worker)} - self._handed_back.get(worker, set()))
        is_idle = not (is_going or has_rows or fleet.has_too_many)
        lane = None
        if is_idle and self._lanes.are_several:
            lane = self._lanes.move_from(worker, fleet.num_serving(), fleet.unfit(worker))
            if lane is not None:
                log.info("%s: no rows are left for it; a process for %s takes its place", worker, lane)
        if is_idle and lane is None and self._is_new_process_wanted(worker, fleet):
            lane = own.key
        if not is_going and (has_rows or (is_idle and lane is None)):
            dropped = own.dispatcher.take_dropped(worker)
            text = "another worker finished this row first; this copy was dropped"
            for row_id in dropped:
                self._note(logging.INFO, worker, row_id, text)
            fleet.exchange(worker, assignments, dropped)
        elif has_rows:
            self._leaving.add(worker)  # for good, as a drained worker takes no more rows
            fleet.drain(worker)
        elif cause := self._faulty.get(worker):
            self._lose(fleet.end(worker, cause), fleet)
        else:
            own.dispatcher.lost(worker)
            self._tally.left(worker, "drained")
            self._audits.left(worker)
            fleet.retire(worker, lane)

    def _is_new_process_wanted(self, worker: str, fleet: Fleet) -> bool:
        """Return whether a new process should take an idle worker's place, as rows wait for one."""
        lane = self._lanes.of(worker)
        num_waiting = lane.dispatcher.num_for_new(worker)
        return bool(num_waiting) and fleet.num_serving()[lane.key] - lane.dispatcher.num_workers < num_waiting

    def _leave(self, worker: str, reason: str, cause: Cause | None = None) -> None:
        """Make a worker hand back its rows. cause: why it ends then, if it was not our decision."""
        if worker not in self._leaving:
            self._leaving.add(worker)
            if cause:
                self._faulty[worker] = cause
            log.warning("%s: %s; its rows are given to other workers", worker, reason)

    def _take(self, worker: str, report: WorkerReport, fleet: Fleet) -> None:
        self._tally.counted(worker, report.figures, store_silent_s=report.store_silent_s)
        for remark in report.remarks:  # first: they led to what follows
            about = {"worker": worker, "row_id": remark.row_id}
            log.log(remark.level, "%s: %s", worker, remark.text, extra=about)
            if remark.row_id:
                self._committer.note(remark.level, worker, remark.row_id, remark.text)
        for audited in report.audited:
            self._has_more |= self._audits.follow(worker, audited) > 0
            for other in self._audits.spoiled(worker, audited):
                self._spoiled.add(other)
                self._leave(other, f"it rendered rows of {audited.kind}, and a new process takes its place")
        for rendered in report.rendered:
            self._finish(worker, rendered)
            fleet.rendered(worker, rendered.record.row_id)
            self._storing.stored(worker, now=time.monotonic())
        for failed in report.failed:
            self._fail(worker, failed, fleet)
        self._halt = self._halt or report.halt
        failed_now = {failed.row_id for failed in report.failed}
        for row_id in report.saved if worker not in self._spoiled else ():
            pending = self._pending.get(row_id)
            self._checkpoints.add(row_id)
            self._tally.counts.add(SAVED_CHECKPOINTS)
            if worker not in self._leaving:
                self._lanes.of(worker).dispatcher.saved(worker, row_id)
            if pending is None and row_id in failed_now:
                self._checkpoints.failed(row_id)
            elif pending is None or self._audits.is_apart(pending.kind):  # it has ended, or cannot be trusted
                self._checkpoints.drop([row_id])
        for row_id in report.handed_back:
            self._committer.note(logging.INFO, worker, row_id, "handed back")
            if worker in self._faulty:
                self._handed_back[worker].add(row_id)
                continue
            self._lanes.of(worker).dispatcher.put_back(worker, [row_id])

    def _note(self, level: int, worker: str, row_id: str, text: str) -> None:
        """Log what happened to a row, here and in the output's logs/."""
        log.log(level, "%s: row %s: %s", worker, row_id, text, extra={"worker": worker, "row_id": row_id})
        self._committer.note(level, worker, row_id, text)

    def _sick(self, worker: str, report: WorkerReport) -> Cause | None:
        """Return why a worker must end: it hangs, or it reports faults that its rows did not cause."""
        lane, faults, silent_s = self._lanes.of(worker), self._run.retries, report.store_silent_s
        is_cut_off = self._storing.is_cut_off(worker, silent_s=silent_s, now=time.monotonic())
        # A compiled model may be compiled again for any batch size, which takes minutes.
        is_known = report.still_s and not lane.setup.model.options.compile
        pace = lane.dispatcher.seconds_per_row(worker, report.rendering) if is_known else None
        longest_still_s = faults.longest_still_s(pace, num_rows=lane.setup.batching.max_rows)
        if worker in self._faulty:  # as at the end of a run: its machine may not wait longer
            longest_still_s = min(longest_still_s, faults.drain_s)
        unexplained = tuple(failed for failed in report.failed if failed.row_id in self._pending)
        report = replace(report, failed=unexplained)  # the others would fail everywhere
        return cause_to_end(report, faults, is_cut_off=is_cut_off, longest_still_s=longest_still_s)

    def _finish(self, worker: str, rendered: StoredRow) -> None:
        record, pending = rendered.record, self._pending.get(rendered.record.row_id)
        is_doubtful = rendered.was_batched and pending and self._audits.is_apart(pending.kind)
        dispatcher = self._lanes.of(worker).dispatcher
        if pending and (is_doubtful or worker in self._spoiled):
            dispatcher.put_back(worker, [record.row_id])  # it was under way when an audit found that
        elif dispatcher.done(worker, record.row_id, time.monotonic(), batch_size=record.batch_size or 1.0):
            pending = self._pending.pop(record.row_id)
            self._tally.done(worker, record.batch_size, record.bytes)
            self._checkpoints.drop([record.row_id])  # its clip is stored
            record = self._audits.ended(record, pending.kind, was_batched=rendered.was_batched)
            self._committer.done(record, pending, worker=worker, added=rendered.added)
            self._tally.lacking(record.row_id, rendered.added.errors)

    def _fail(self, worker: str, failed: Failed, fleet: Fleet) -> None:
        if failed.blame == "output":
            raise errors.StoreError(
                failed.message, "when the output can be written again, run the same command again to continue"
            )
        if failed.row_id not in self._pending:
            return  # it has ended elsewhere
        self._note(logging.WARNING, worker, failed.row_id, f"{failed.error_type}: {failed.message}")
        if failed.blame not in ("row", "memory"):
            return  # the worker ends for it, see `_sick`, and the row goes back like its others
        dispatcher = self._lanes.of(worker).dispatcher
        if failed.blame == "memory":
            if given_up := dispatcher.ran_out(worker, failed.row_id, failed, room=failed.room):
                fleet.cleared(worker)
        else:
            self._checkpoints.failed(failed.row_id)
            is_final, may_spoil = failed.is_final, self._lanes.of(worker).may_spoil
            given_up = dispatcher.failed(
                worker, failed.row_id, failed, retry=not is_final, may_be_spoilt=may_spoil
            )
            if given_up:
                fleet.acquitted(worker, failed.row_id)
        if given_up:
            self._give_up(given_up)

    def _lose(self, event: events.Lost, fleet: Fleet) -> None:
        lane, announced = self._lanes.of(event.worker), self._faulty.pop(event.worker, None)
        if announced and announced.kind == "gone":
            event = replace(event, cause=announced)  # no matter how its process ended
        cause = event.cause
        self._handed_back.pop(event.worker, None)
        self._tally.left(event.worker, "lost")
        self._audits.left(event.worker)
        if cause.kind == "died" or cause.suspects:
            lane.largest = None  # its rehearsal may be the cause, which must not be blamed on rows again
        rows = lane.dispatcher.rows_of(event.worker)
        for row_id in rows:
            self._committer.note(logging.WARNING, event.worker, row_id, f"its worker is lost: {cause.reason}")
        given_up = lane.dispatcher.lost(event.worker, suspects=cause.suspects, why=cause.reason)
        for row in given_up:
            self._give_up(row)
        loss = LostRows(
            rows=rows if cause.suspects is None else cause.suspects,
            given_up=[row.row.row_id for row in given_up],
            num_suspects=lane.dispatcher.num_suspects,
            busy=lane.dispatcher.in_hand(),
        )
        fleet.replace(event, loss)

    def _lose_lane(self, event: events.LaneLost) -> None:
        """Continue with the rows of other lanes, if there are any; else the job ends."""
        given_up = []
        for worker in event.workers:
            given_up += self._lanes.of(worker).dispatcher.lost(worker, suspects=())
            self._tally.left(worker, "lost")
            self._audits.left(worker)
        for row in [*given_up, *self._lanes.lose(event.lane, event.error)]:
            self._give_up(row)
        if not self._lanes.left():
            raise self._lanes.error() or event.error
        log.error("%s; the rows of other lanes are rendered", self._lanes.error())

    def _give_up(self, row: GivenUp) -> None:
        pending = self._pending.pop(row.row.row_id)
        self._audits.given_up(row.row.row_id, pending.kind)
        failure = self._committer.given_up(row, pending)
        self._committer.note(logging.WARNING, "", row.row.row_id, f"given up: {row.reason}")
        self._checkpoints.failed(row.row.row_id)
        self._tally.counts.add(FAILED_BY_TYPE, label=failure.error_type)
        self._tally.failed(f"{failure.error_type}: {failure.message}")

    def _assignments(self, worker: str) -> list[Assignment]:
        """Lease all rows to the worker that it may have now."""
        assignments, kinds = [], set()
        lane = self._lanes.of(worker)
        while (lease := lane.dispatcher.lease(worker, time.monotonic())) is not None:
            for leased in lease.rows:
                if leased.attempt > 1:
                    self._tally.counts.add(ROW_RETRIES)
                    self._committer.note(logging.INFO, worker, leased.row.row_id, f"attempt {leased.attempt}")
                pending = self._pending[leased.row.row_id]
                kinds.add(pending.kind)
                assignment = Assignment(
                    row_id=leased.row.row_id,
                    request=pending.request,
                    attempt=leased.attempt,
                    is_apart=self._audits.is_apart(pending.kind),
                    is_audited=not lane.may_spoil and self._audits.order(leased.row.row_id, pending.kind),
                    has_checkpoint=leased.row.row_id in self._checkpoints,
                    largest=lane.largest,
                )
                assignments.append(assignment)
        self._audits.leased(worker, kinds)
        if assignments:
            self._tally.leased(now=time.monotonic())
        return assignments

    def _refused(self, event: events.Ready, lane: Lane) -> Cause | None:
        """Return why a worker must end: its machine has another model, or not the GPU that the job wants."""
        who, device = f"{event.worker} on {event.hello.node}", device_name(event.hello.environment)
        if event.hello.model_digest != lane.digest:
            error: errors.FramefleetError = errors.ModelError(
                f"{who} found other files at {lane.setup.model.name}",
                "put the same model on every machine of the cluster",
            )
        else:
            self._device_name = device if self._device_name == "" else self._device_name
            if self._device_name in (None, device):
                return None
            error = errors.FleetError(
                f"{who} has {device}, but this output is rendered on {self._device_name} (fleet.same_gpu)",
                "give the job machines of that kind, or set `fleet.same_gpu: false`",
            )
        return Cause(reason=error.problem, kind="refused", error=error)


class _CutShort(Exception):
    """The run ends before rows that were added are checked."""


@dataclass(slots=True)
class _Extension:
    """When to add rows that depend on the records, and how many."""

    at: float = 0.0  # of the last time
    num_ended: int = 0  # rows of this run, by then
    most_leased: int = 0  # to all workers at once

    def is_due(self, progress: Progress, lanes: Lanes) -> bool:
        """Return whether records may say more than the last time, and workers soon need rows."""
        self.most_leased = max(self.most_leased, progress.in_flight)
        num_ended, now = progress.done + progress.failed, time.monotonic()
        if all(lane.num_unleased for lane in lanes):
            return False
        is_soon = num_ended > self.num_ended and self.num_needed(lanes)  # else judges may have answered
        if not is_soon and now - self.at < _EXTEND_S:
            return False
        self.at, self.num_ended = now, num_ended
        return True

    def num_needed(self, lanes: Lanes) -> int:
        """Return how many rows give each worker one lease: half of the most that they had together."""
        num_workers = sum(lane.dispatcher.num_workers for lane in lanes)
        return max(0, max(num_workers, self.most_leased // 2) - sum(lanes.in_hand().values()))
