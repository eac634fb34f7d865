"""From an output to what earlier runs spent: time, as their drivers said, and bytes, as its records do."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pyarrow.compute as pc

from framefleet.cluster.driver.budget import Spent
from framefleet.cluster.driver.holder import read_holder
from framefleet.pipeline.metrics import WORKER_SECONDS
from framefleet.pipeline.outputs.parts.parts import tables_by_part
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, fields_named
from framefleet.pipeline.outputs.parts.seals import epochs_of
from framefleet.pipeline.outputs.stores.store import Store

_FIELDS = fields_named(FIRST_FIELDS, "bytes")


def spent_before(store: Store) -> Spent:
    """Return what all drivers of an output said last that they had spent, and the bytes of its clips.

    A driver that was killed said so a beat before. Records could not tell: clips of one run are adopted by
    the next, days later, and `repair` writes parts of many runs anew. Their bytes are those that are there.
    """
    num_bytes = sum(pc.sum(records["bytes"]).as_py() or 0 for _, records in tables_by_part(store, _FIELDS))
    return sum(_said(store), Spent(num_bytes=num_bytes))


def _said(store: Store) -> Iterator[Spent]:
    """Yield the time that each driver said it took, as far as anybody can read that; files are anybody's."""
    for epoch in epochs_of(store):
        holder = read_holder(store, epoch)
        if holder and (told := holder.progress):
            spent = Spent(elapsed_s=told.elapsed_s, worker_s=WORKER_SECONDS.total(told.figures))
            if all(math.isfinite(seconds) and seconds >= 0 for seconds in (spent.elapsed_s, spent.worker_s)):
                yield spent
