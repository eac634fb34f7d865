"""From finished rows to parts: what this module has flushed is committed, whatever happens next."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

from framefleet.cluster.dispatch.dispatcher import GivenUp
from framefleet.cluster.driver.earlier_runs import TakenBack, note_apart, path_of, take_back
from framefleet.cluster.driver.feed import Pending
from framefleet.cluster.driver.task_queue import TaskQueue
from framefleet.cluster.driver.work import Work
from framefleet.cluster.worker.messages import Failed
from framefleet.pipeline.errors import StoreError
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.outputs.clip_step import (
    CellValue,
    StepValues,
    added_columns,
    all_values,
    fitting_cells,
)
from framefleet.pipeline.outputs.layout import CLAIM, FAILURES, LOGS, RECORDS
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.pending_clips import path_of_intent
from framefleet.pipeline.outputs.parts.records import (
    FailureRecord,
    Record,
    failure_schema,
    public_arguments,
    record_schema,
    values_of,
)
from framefleet.pipeline.outputs.parts.seals import delete_late, live_parts
from framefleet.pipeline.outputs.row_states import LOG_FIELDS, MAX_LOG_LINES, LogLine
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.rows.tables.record_columns import argument_values

# What may wait while the output cannot be written and workers still can; then the driver waits too.
_MAX_WAITING = 1024
_CLEANING_S = 5.0  # in the end, and no longer
_MAX_MESSAGE = 1000  # characters that are kept of what is said about a row

log = logging.getLogger(__name__)


class Committer:
    """Writes the records and failures of one run. The only writer of an output: it holds the lock.

    In a thread of its own: while the output does not answer, the driver goes on to hear its workers.
    """

    def __init__(self, work: Work) -> None:
        run, store = work.run, work.run.store
        self._models = {key.model: lane.setup.model.name for key, lane in work.lanes.items()}
        self._store, self._index, self._lock = store, work.index, work.lock
        carried, self._arguments = run.rows.carried.schema(run.table.schema), run.rows.argument_fields
        self._added = added_columns(run.steps)
        job = ""
        with suppress(FileNotFoundError):
            job = store.read(CLAIM).decode("utf-8", "replace")  # each part repeats it
        num_parts, run_id = len(live_parts(store)), work.run_id
        records = record_schema(carried, self._arguments, self._added)
        self._records = PartWriter(store, RECORDS, records, run=run_id, job=job, num_before=num_parts)
        self._failures = PartWriter(store, FAILURES, failure_schema(carried, self._arguments), run=run_id)
        self._log = PartWriter(store, LOGS, LOG_FIELDS, run=run_id)
        self._writers = self._records, self._failures, self._log
        self._num_lines = 0
        self._intents: list[str] = []  # of the rows that wait for their part
        self._writing = TaskQueue("commit")  # whose the three are
        self._is_asked = False  # to see what is due
        self._cleaner = TaskQueue("pending")
        self._owed_kinds: set[str] = set()  # that are to be noted as apart

    def done(
        self, record: Record, pending: Pending, *, worker: str, values: Mapping[str, StepValues] | None = None
    ) -> None:
        own = {"row_indices": self._index.positions(record.row_id, pending.position), "worker": worker}
        self._writing.do(partial(self._add, record, own, pending, all_values(values or {})))

    def withdraw(self, kind: str) -> TakenBack:
        """Let doubtful rows of this kind have no record any more, and their clips not be adopted.

        The kind is written down first: what fails after that is done by whoever holds the output next.
        """
        self._owed_kinds.add(kind)
        self._note_owed()
        self.flush()
        self._cleaner.wait()  # what it deletes is written anew
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
        last = row.errors[-1][1] if row.errors else None
        failure = FailureRecord(
            row_id=row_id,
            row_indices=tuple(self._index.positions(row_id, pending.position)),
            error_type=last.error_type if isinstance(last, Failed) else "WorkerDied",
            message=last.message if isinstance(last, Failed) else row.reason,
            traceback=last.traceback if isinstance(last, Failed) else "",
            attempts=row.attempts,
            arguments=public_arguments(request.arguments),
            seed=request.seed,
            scheduler=request.scheduler,
            recipe=request.recipe,
            model=self._models[request.model],
            workers=tuple(worker for worker, _ in row.errors),
            failed_at=datetime.now(UTC),
        )
        self._writing.do(partial(self._failures.add, pending.carried, self._columns(failure, pending)))
        return failure

    def note(self, level: int, worker: str, row_id: str, message: str) -> None:
        """Keep what happened to a row, but no more than the output has room for."""
        self._num_lines += 1
        if self._num_lines > MAX_LOG_LINES:
            return
        now, name, text = datetime.now(UTC), logging.getLevelName(level).lower(), public_text(message)
        line = LogLine(at=now, level=name, worker=worker, row_id=row_id, message=text[:_MAX_MESSAGE])
        self._writing.do(partial(self._log.add, None, asdict(line)))

    def flush_due(self, now: float) -> None:
        """See that what has waited long enough, or is enough, is written. Raises what kept it from that."""
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
            self._note_owed()  # where that failed before, before any more of these rows are written
            self._writing.do(partial(self._flush, self._writers))
            self._writing.close()
        finally:
            self._cleaner.leave(after_s=_CLEANING_S)  # what it leaves is found by the next driver

    def _add(
        self, record: Record, own: dict[str, Any], pending: Pending, added: Mapping[str, CellValue]
    ) -> None:
        """Take a record. own: what only the driver knows of it."""
        columns = self._columns(record, pending) | own | fitting_cells(self._added, added)
        self._records.add(pending.carried, columns)
        self._intents.append(path_of_intent(record))

    def _columns(self, row: Record | FailureRecord, pending: Pending) -> dict[str, Any]:
        return argument_values(pending.request.arguments, self._arguments) | values_of(row)

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
