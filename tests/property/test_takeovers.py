"""Drivers that freeze, wake and take over from each other at any moment: each row has one record."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from unittest import mock

import fsspec
import pyarrow as pa
from hypothesis import given, settings, strategies as st

from framefleet import Store, StoreError
from framefleet.cluster.driver.lock import DriverLock, Holder
from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.outputs.parts.part_file import read_part
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.pipeline.outputs.parts.seals import delete_late, live_parts, new_run, parts_in, sweep_late
from tests.long import examples
from tests.outputs import committed_row_ids, row_ids_of
from tests.rows import record

NUM_ROWS = 3
ROW_IDS = [f"{number:032x}" for number in range(NUM_ROWS)]


def drive(store: Store, name: str, confirmed: dict[str, str]) -> Iterator[None]:
    """Do what a driver does, and pause wherever it may be frozen, or a request on its way."""
    lock = DriverLock(store, beat_s=3600)
    while not lock._take_next():
        yield
    yield
    lock.seal()
    yield
    try:
        lock.check()
        sweep_late(store, lock)
        yield
        done = {row_id for row_ids in committed_row_ids(store) for row_id in row_ids}
        writer = PartWriter(store, RECORDS, RECORD_FIELDS, run=new_run(lock.epoch))
        for number, row_id in enumerate(ROW_IDS):
            if row_id in done:
                continue
            writer.add(None, values_of(record(number, worker=name)))
            lock.check()
            yield
            written = writer.flush()
            yield
            try:
                lock.check()
            except StoreError:
                yield
                delete_late(store, written)
                raise
            confirmed[row_id] = name
            yield
        sweep_late(store, lock)
    except StoreError:  # it lost the lock, and ends
        assert lock.lost.is_set()


@settings(max_examples=examples(50), deadline=None)
@given(turns=st.lists(st.integers(0, 2), max_size=60))
def test_each_row_has_one_record_whoever_wakes_when(turns: list[int]) -> None:
    store, confirmed = Store(f"memory://{uuid.uuid4().hex}"), dict[str, str]()
    # All look gone to each other, as those do that are frozen: whoever comes takes over.
    with mock.patch.object(Holder, "is_gone", lambda holder: True):
        drivers = [drive(store, f"worker-{number}", confirmed) for number in range(3)]
        for turn in turns:
            next(drivers[turn], None)
            check(store, confirmed)
        for driver in drivers:
            list(driver)
        list(drive(store, "last", confirmed))
    check(store, confirmed)
    rows = Counter(row_id for part in parts_in(store, RECORDS) for row_id in row_ids_of(store, part.path))
    assert rows == Counter(ROW_IDS), "late ones are swept, for those who read the folder itself"
    fsspec.filesystem("memory").store.clear()


def check(store: Store, confirmed: dict[str, str]) -> None:
    """No reader sees a row twice, and what a driver was sure of stays as it was."""
    fields = pa.schema([RECORD_FIELDS.field(name) for name in ("row_id", "worker")])
    tables = [read_part(store, part.path, fields) for part in live_parts(store)]
    seen = [tuple(row.values()) for table in tables for row in table.to_pylist()]
    assert len(dict(seen)) == len(seen)
    assert confirmed.items() <= set(seen)
