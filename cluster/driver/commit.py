"""From finished rows to parts: what this module has flushed is committed, whatever happens next.

Commits and deletions are done one after another, in a thread of their own. Half-done rows have a checkpoint
file each, which is deleted here. These files only save time: if one is lost, damaged or from another machine,
its row starts over, and one that a worker wrote late, cut off from its driver, is as good as any. The
renderer decides whether it fits.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from queue import Queue
from typing import Any

from framefleet.cluster.dispatch.dispatcher import GivenUp
from framefleet.cluster.driver.earlier_runs import TakenBack, note_apart, path_of, take_back
from framefleet.cluster.driver.feed import Pending
from framefleet.cluster.driver.run import Run
from framefleet.cluster.worker.checkpointer import checkpoint_path
from framefleet.cluster.worker.messages import Failed
from framefleet.pipeline.errors import StoreError
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.outputs.columns import CellValue, ColumnValues, fitting_cells
from framefleet.pipeline.outputs.file_step import added_columns
from framefleet.pipeline.outputs.layout import CHECKPOINTS, CLAIM, FAILURES, LOGS, RECORDS
from framefleet.pipeline.outputs.parts import records
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.pending_clips import path_of_intent
from framefleet.pipeline.outputs.parts.records import FailureRecord, Record
from framefleet.pipeline.outputs.parts.seals import delete_late, live_parts
from framefleet.pipeline.outputs.row_states import LOG_FIELDS, MAX_LOG_LINES, LogLine
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.rows.tables.record_columns import argument_values

log = logging.getLogger(__name__)


class TaskQueue:
    """A queue and its daemon thread: a process that must end does not wait for a task that hangs."""

    def __init__(self, name: str) -> None:
        self._tasks: Queue[Callable[[], None] | None] = Queue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._lock = threading.Lock()  # guards the next
        self._error: BaseException | None = None
        self._is_left = False

    @property
    def num_waiting(self) -> int:
        """How many tasks are not done yet."""
        return self._tasks.unfinished_tasks

    def do(self, task: Callable[[], None]) -> None:
        """Do this task after all that were added before, even if one of those fails."""
        if self._thread.ident is None:
            self._thread.start()
        self._tasks.put(task)

    def check(self) -> None:
        """Raise what a task raised, once."""
        with self._lock:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Return when all tasks are done; raise what one of them raised."""
        self._tasks.join()
        self.check()

    def close(self) -> None:
        """Do all tasks that were added, and accept no more."""
        self.leave(after_s=None)
        self.check()

    def leave(self, *, after_s: float | None) -> None:
        """Do the tasks that were added so far, and then no more; raises nothing."""
        self._tasks.put(None)
        if self._thread.ident is not None:
            self._thread.join(after_s)
        self._is_left = True

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None and not self._is_left:
            try:
                task()
            except BaseException as error:  # for `check`: a thread has no caller
                with self._lock:
                    self._error = self._error or error
            finally:
                self._tasks.task_done()


# Tasks that may wait while the output cannot be written and workers continue; then the driver waits too.
_MAX_WAITING = 1024
_CLEANING_S = 5.0  # at the end of a run
_MAX_MESSAGE = 1000  # characters of a line about a row


class Committer:
    """Writes the records and failures of one run. The only writer of an output: it holds the lock.

    It writes in its own thread, so that the driver still hears its workers while the output does not answer.
    """

    def __init__(self, run: Run) -> None:
        store = run.store
        self._models = {key.model: lane.setup.model.name for key, lane in run.lanes.items()}
        self._store, self._index, self._lock = store, run.index, run.lock
        carried, self._arguments = run.rows.carried.schema(run.table.schema), run.rows.argument_fields
        self._added = added_columns(run.steps, run.columns)
        job = ""
        with suppress(FileNotFoundError):
            job = store.read(CLAIM).decode("utf-8", "replace")  # each part repeats it
        num_parts, run_id = len(live_parts(store)), run.run_id
        schema = records.record_schema(carried, self._arguments, self._added)
        self._records = PartWriter(store, RECORDS, schema, run=run_id, job=job, num_before=num_parts)
        schema = records.failure_schema(carried, self._arguments)
        self._failures = PartWriter(store, FAILURES, schema, run=run_id)
        self._log = PartWriter(store, LOGS, LOG_FIELDS, run=run_id)
        self._writers = self._records, self._failures, self._log
        self._num_lines = 0
        self._intents: list[str] = []  # of the rows that wait for their part
        self._writing = TaskQueue("commit")  # the only thread that uses the writers
        self._is_asked = False  # to look at what is due
        self._cleaner = TaskQueue("pending")
        self._owed_kinds: set[str] = set()  # that must still be noted as apart

    def done(
        self, record: Record, pending: Pending, *, worker: str, added: ColumnValues | None = None
    ) -> None:
        own = {"row_indices": self._index.positions(record.row_id, pending.position), "worker": worker}
        self._writing.do(partial(self._add, record, own, pending, added.values if added else {}))

    def withdraw(self, kind: str) -> TakenBack:
        """Take back the records of doubtful rows of this kind, and never adopt their clips.

        The kind is written down first: what fails after that is done by the next driver.
        """
        self._owed_kinds.add(kind)
        self._note_owed()
        self.flush()
        self._cleaner.wait()  # what it deletes is written again
        apart = {path_of(kind) for kind in self._owed_kinds}
        taken_back = take_back(self._store, self._index, apart, self._lock, has_begun=True)
        self._owed_kinds.clear()
        return taken_back

    def _note_owed(self) -> None:
        for kind in self._owed_kinds:
            note_apart(self._store, kind)

    def given_up(self, row: GivenUp, pending: Pending) -> FailureRecord:
        """Note a row that is not tried again; return its record of the failure."""
        request, row_id = pending.request, row.row.row_id
        last = row.errors[-1][1] if row.errors and not row.is_killer else None
        failure = FailureRecord(
            row_id=row_id,
            row_indices=tuple(self._index.positions(row_id, pending.position)),
            error_type=last.error_type if isinstance(last, Failed) else "WorkerDied",
            message=last.message if isinstance(last, Failed) else row.reason,
            traceback=last.traceback if isinstance(last, Failed) else "",
            attempts=row.attempts,
            arguments=records.public_arguments(request.arguments),
            seed=request.seed,
            scheduler=request.scheduler,
            recipe=request.recipe,
            model=self._models[request.model],
            workers=(*(worker for worker, _ in row.errors), *row.struck_on),
            failed_at=datetime.now(UTC),
        )
        self._writing.do(partial(self._failures.add, pending.carried, self._columns(failure, pending)))
        return failure

    def note(self, level: int, worker: str, row_id: str, message: str) -> None:
        """Log what happened to a row, at most `MAX_LOG_LINES` times in a run; then that there is more."""
        self._num_lines += 1
        if self._num_lines > MAX_LOG_LINES + 1:
            return
        if self._num_lines > MAX_LOG_LINES:
            level, worker, row_id = logging.WARNING, "", ""
            message = f"{MAX_LOG_LINES:,} lines were logged; of what happened later in this run, none are"
        now, name, text = datetime.now(UTC), logging.getLevelName(level).lower(), public_text(message)
        line = LogLine(at=now, level=name, worker=worker, row_id=row_id, message=text[:_MAX_MESSAGE])
        self._writing.do(partial(self._log.add, None, asdict(line)))

    def flush_due(self, now: float) -> None:
        """Write what has waited long enough, or is enough for a part. Raises what an earlier task raised."""
        self._writing.check()
        if self._writing.num_waiting > _MAX_WAITING:
            self._writing.wait()
        if not self._is_asked:
            self._is_asked = True
            self._writing.do(partial(self._flush_due, now))

    def flush(self) -> None:
        """Write everything. Raises StoreError when another driver has taken the output over."""
        self._writing.do(partial(self._flush, self._writers))
        self._writing.wait()

    def close(self) -> None:
        try:
            self._note_owed()  # if that failed before: then before any more of these rows are written
            self._writing.do(partial(self._flush, self._writers))
            self._writing.close()
        finally:
            self._cleaner.leave(after_s=_CLEANING_S)  # what it leaves is found by the next driver

    def _add(
        self, record: Record, own: dict[str, Any], pending: Pending, added: Mapping[str, CellValue]
    ) -> None:
        """Add a record. own: columns that only the driver knows."""
        columns = self._columns(record, pending) | own | fitting_cells(self._added, added)
        self._records.add(pending.carried, columns)
        self._intents.append(path_of_intent(record))

    def _columns(self, row: Record | FailureRecord, pending: Pending) -> dict[str, Any]:
        return argument_values(pending.request.arguments, self._arguments) | records.values_of(row)

    def _flush_due(self, now: float) -> None:
        self._is_asked = False
        if writers := [writer for writer in self._writers if writer.due(now)]:
            self._flush(writers)

    def _flush(self, writers: Sequence[PartWriter]) -> None:
        self._lock.check()
        written = {writer: writer.flush() for writer in writers}
        try:
            self._lock.check()
        except StoreError:
            if self._lock.lost.is_set():  # parts came too late to count
                delete_late(self._store, written.get(self._records, []))
            raise
        if self._records in written:
            done, self._intents = self._intents, []
            self._cleaner.do(partial(_forget, self._store, done))


def _forget(store: Store, intents: list[str]) -> None:
    try:
        store.delete_many(intents)
    except StoreError as error:  # the next driver finds them
        log.warning("%s", error)


_NAME = re.compile(rf"{CHECKPOINTS}/([0-9a-f]{{32}})\.safetensors")


def half_done_in(store: Store) -> Iterator[str]:
    """Yield the row_ids of all checkpoints; some of these rows may have a record by now."""
    return (match[1] for path in store.list(CHECKPOINTS) if (match := _NAME.fullmatch(path)))


class HalfDoneRows:
    """The rows that have a checkpoint. Deletes in the background."""

    def __init__(self, store: Store, *, is_whole: bool, are_paid: bool = False) -> None:
        """is_whole: this run renders all rows that are left; if not, checkpoints of other rows stay.

        are_paid: they are an engine's, which says itself what is of no use any more.
        """
        self._store, self._is_whole, self._are_paid = store, is_whole, are_paid
        self._there: set[str] = set()
        self._deleting = TaskQueue("checkpoints")
        self._were_there = self._are_others = False

    def __contains__(self, row_id: str) -> bool:
        return row_id in self._there

    def __len__(self) -> int:
        return len(self._there)

    def find(self, is_pending: Callable[[str], bool | None]) -> None:
        """Find the checkpoints of earlier runs; delete those of rows that have a record.

        is_pending: False for these; None for rows that the job does not have now, and may have again.
        """
        for row_id in half_done_in(self._store):
            self.add(row_id)
        self._are_others = any(is_pending(row_id) is None for row_id in self._there)
        if self._is_whole:
            self.drop(row_id for row_id in list(self._there) if is_pending(row_id) is False)

    def add(self, row_id: str) -> None:
        self._were_there = True
        self._there.add(row_id)

    def drop(self, row_ids: Iterable[str] | None = None) -> None:
        """Stop using these checkpoints, or all, and delete them in the background."""
        dropped = sorted(self._there if row_ids is None else self._there.intersection(row_ids))
        self._there.difference_update(dropped)
        for row_id in dropped:
            self._deleting.do(partial(self._delete, checkpoint_path(row_id)))

    def failed(self, row_id: str) -> None:
        """Stop using what may be why a row failed."""
        if not self._are_paid:
            self.drop([row_id])

    def close(self, *, is_complete: bool) -> None:
        """Leave what is not deleted yet to the next run; if all rows have ended, delete the rest too."""
        if not is_complete:
            self._deleting.leave(after_s=0)
            return
        self._deleting.close()
        # Also what workers wrote of rows that ended elsewhere.
        are_kept = self._are_others or (self._are_paid and self._there)  # the latter for `retry`
        if self._is_whole and self._were_there and not are_kept:
            try:
                self._store.delete_all(CHECKPOINTS)
            except StoreError as error:
                log.warning("could not delete %s: %s", self._store.url_of(CHECKPOINTS), error)

    def _delete(self, path: str) -> None:
        try:
            self._store.delete(path)
        except StoreError as error:  # the next run will
            log.warning("could not delete %s: %s", self._store.url_of(path), error)
