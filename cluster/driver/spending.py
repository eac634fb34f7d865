"""From an output to what earlier runs spent: time, as their drivers said, and bytes, as its records do."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pyarrow.compute as pc

from framefleet.cluster.driver.budget import Spent
from framefleet.cluster.driver.holder import read_holder
from framefleet.cluster.driver.progress import Progress
from framefleet.pipeline.metrics import WORKER_SECONDS
from framefleet.pipeline.outputs.parts.parts import tables_by_part
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, fields_named
from framefleet.pipeline.outputs.parts.seals import epochs_of
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.render.audit.audit_budget import ComputeTime

_FIELDS = fields_named(FIRST_FIELDS, "bytes")


def spent_before(store: Store) -> Spent:
    """Return what all drivers of an output last reported as spent, and the bytes of its clips.

    A driver that was killed said so a beat before. Records could not tell: clips of one run are adopted by
    the next, days later, and `repair` writes parts of many runs anew. Their bytes are those that are there.
    """
    num_bytes = sum(pc.sum(records["bytes"]).as_py() or 0 for _, records in tables_by_part(store, _FIELDS))
    return sum(_said(store), Spent(num_bytes=num_bytes))


def model_time_before(store: Store) -> ComputeTime:
    """Return how long models computed in all runs, as their drivers last reported."""
    times = (ComputeTime.of(told.figures) for told in _reports(store))
    return sum((time for time in times if _are_sound(time.rows_s, time.audits_s)), ComputeTime())


def _said(store: Store) -> Iterator[Spent]:
    """Yield the time that each driver reported."""
    for told in _reports(store):
        spent = Spent(elapsed_s=told.elapsed_s, worker_s=WORKER_SECONDS.total(told.figures))
        if _are_sound(spent.elapsed_s, spent.worker_s):
            yield spent


def _reports(store: Store) -> Iterator[Progress]:
    """Yield each driver's last report, as far as it can be read; files may be anybody's."""
    for epoch in epochs_of(store):
        holder = read_holder(store, epoch)
        if holder and holder.progress:
            yield holder.progress


def _are_sound(*seconds: float) -> bool:
    return all(math.isfinite(one) and one >= 0 for one in seconds)
