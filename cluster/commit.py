"""From finished rows to parts: what this module has flushed is done, whatever happens next."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa

from framefleet.cluster.beside import Beside
from framefleet.cluster.dispatcher import GivenUp
from framefleet.cluster.feed import Pending
from framefleet.cluster.lock import DriverLock
from framefleet.cluster.messages import Failed, WorkerSetup
from framefleet.pipeline.outputs.encode_clip import clip_path, extras_path
from framefleet.pipeline.outputs.parts import PartWriter
from framefleet.pipeline.outputs.records import (
    FAILURES,
    RECORDS,
    FailureRecord,
    Record,
    failure_schema,
    public_arguments,
    record_schema,
    values_of,
)
from framefleet.pipeline.outputs.withdrawal import withdraw
from framefleet.pipeline.rows.tables.index import RowIndex

# What may wait while the output cannot be written and workers still can; then the driver waits too.
_MAX_WAITING = 1024


class Committer:
    """Writes the records and failures of one run. The only writer of an output: it holds the lock.

    In a thread of its own: while the output does not answer, the driver goes on to hear its workers.
    """

    def __init__(
        self, setup: WorkerSetup, carried: pa.Schema, index: RowIndex, lock: DriverLock, *, run: str
    ) -> None:
        """carried: the columns of the table that go into records as they are."""
        self._setup = setup
        self._index = index
        self._lock = lock
        self._run = run
        self._records = PartWriter(setup.store, RECORDS, record_schema(carried), run=run)
        self._failures = PartWriter(setup.store, FAILURES, failure_schema(carried), run=run)
        self._beside = Beside("commit")  # whose the two are
        self._is_asked = False  # to see what is due

    def done(self, record: Record, pending: Pending, *, worker: str) -> None:
        indices = tuple(self._index.positions(record.row_id))
        record = dataclasses.replace(record, row_indices=indices, worker=worker)
        self._beside.do(partial(self._records.add, pending.carried, values_of(record)))

    def withdraw(self, row_ids: Collection[str]) -> None:
        """Let these rows of this run have no record any more, and no clip."""
        self.flush()
        withdraw(self._setup.store, row_ids, run=self._run)
        for row_id in row_ids:
            self.discard_clip(row_id)

    def discard_clip(self, row_id: str) -> None:
        """Delete the clip of a row without a record, and what lies beside it: another can be stored."""
        for path in (clip_path(row_id, self._setup.media.suffix), extras_path(row_id)):
            self._setup.store.delete(path)

    def given_up(self, row: GivenUp, pending: Pending) -> FailureRecord:
        """Note a row that is not tried again; return what is noted."""
        request, row_id = pending.request, row.row.row_id
        last = row.errors[-1][1] if row.errors else None
        failure = FailureRecord(
            row_id=row_id,
            row_indices=tuple(self._index.positions(row_id)),
            error_type=last.error_type if isinstance(last, Failed) else "WorkerDied",
            message=last.message if isinstance(last, Failed) else row.reason,
            traceback=last.traceback if isinstance(last, Failed) else "",
            attempts=row.attempts,
            arguments=public_arguments(request.arguments),
            seed=request.seed,
            scheduler=request.scheduler,
            recipe=request.recipe,
            model=self._setup.model.name,
            workers=tuple(worker for worker, _ in row.errors),
            failed_at=datetime.now(UTC),
        )
        self._beside.do(partial(self._failures.add, pending.carried, values_of(failure)))
        return failure

    def flush_due(self, now: float) -> None:
        """See that what has waited long enough, or is enough, is written. Raises what kept it from that."""
        self._beside.check()
        if self._beside.num_waiting > _MAX_WAITING:
            self._beside.wait()
        if not self._is_asked:
            self._is_asked = True
            self._beside.do(partial(self._flush_due, now))

    def flush(self) -> None:
        """Write everything. Raises StoreError when another driver has taken the output over."""
        self._beside.do(self._flush)
        self._beside.wait()

    def close(self) -> None:
        """Write everything, for the last time."""
        self._beside.do(self._flush)
        self._beside.close()

    def _flush_due(self, now: float) -> None:
        self._is_asked = False
        if self._records.due(now) or self._failures.due(now):
            self._flush()

    def _flush(self) -> None:
        self._lock.check()
        self._records.flush()
        self._failures.flush()
