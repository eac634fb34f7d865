"""One worker in this process, without a driver: tests exchange with it themselves."""

from __future__ import annotations

import time
from collections.abc import Sequence

from framefleet import Audit, Batching, Inputs, Store
from framefleet.cluster.worker.messages import Assignment, StoredRow, WorkerSetup
from framefleet.cluster.worker.worker import Worker
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.outputs.media.media_settings import Media
from tests.tiny import tiny

WITHIN_S = 240.0


def worker_setup(model: str, store: Store, inputs: Inputs, *, keep_embeddings: bool = False) -> WorkerSetup:
    return WorkerSetup(
        model=ModelSettings(path=str(tiny(model))),
        batching=Batching(max_rows=4, min_gain=0),
        media=Media(),
        store=store,
        recipes={},
        inputs=inputs,
        audit=Audit(every=0),
        keep_embeddings=keep_embeddings,
    )


def started_worker(setup: WorkerSetup) -> Worker:
    worker = Worker(setup)
    while hasattr(worker.start(), "doing"):
        """It is loading."""
    return worker


def stored_by(worker: Worker, count: int, given: Sequence[Assignment] = ()) -> list[StoredRow]:
    """Give a worker rows, and wait for so many clips."""
    rows: list[StoredRow] = []
    ends = time.monotonic() + WITHIN_S
    while len(rows) < count and time.monotonic() < ends:
        report, given = worker.exchange(given), ()
        assert not report.failed, report.failed
        rows += report.rendered
    return rows
