"""From an output's records to what earlier runs of its job spent, as far as they tell."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.cluster.budget import Spent
from framefleet.pipeline.outputs.parts.part_names import part_of
from framefleet.pipeline.outputs.parts.parts import tables_by_part
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, fields_named
from framefleet.pipeline.outputs.stores.store import Store

_FIELDS = fields_named(FIRST_FIELDS, "worker", "started_at", "finished_at", "bytes")
_Span = tuple[datetime, datetime]


def spent_before(store: Store) -> Spent:
    """Return what was spent between the first row and the last of each run, and of each of its workers.

    Not what came before a first row and after a last one: Ray, loading models, rows without a record.
    """
    runs: dict[str, _Span] = {}
    workers: dict[tuple[str, str], _Span] = {}
    num_bytes = 0
    for path, records in tables_by_part(store, _FIELDS):
        part = part_of(path)
        run = part.run if part else ""
        num_bytes += pc.sum(records["bytes"]).as_py() or 0
        for worker, span in _spans(records).items():
            workers[run, worker] = _joined(workers.get((run, worker)), span)
            runs[run] = _joined(runs.get(run), span)
    return Spent(
        elapsed_s=sum(map(_seconds, runs.values())),
        worker_s=sum(map(_seconds, workers.values())),
        num_bytes=num_bytes,
    )


def _spans(records: pa.Table) -> dict[str, _Span]:
    """Return when each worker took its first row, and when it ended its last."""
    found = records.group_by("worker").aggregate([("started_at", "min"), ("finished_at", "max")])
    return {row["worker"]: (row["started_at_min"], row["finished_at_max"]) for row in found.to_pylist()}


def _joined(one: _Span | None, other: _Span) -> _Span:
    return other if one is None else (min(one[0], other[0]), max(one[1], other[1]))


def _seconds(span: _Span) -> float:
    return max(0.0, (span[1] - span[0]).total_seconds())
