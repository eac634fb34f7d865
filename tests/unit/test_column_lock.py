"""One writer at a time for a column: which of its parts count is decided by epochs, and by no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa
import pytest

import framefleet
from framefleet import JobError, OutputInUse, Store, StoreError
from framefleet.pipeline.outputs.columns import late_field
from framefleet.pipeline.outputs.layout import COLUMN_LOCKS, SCORES
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.seals import epoch_path
from framefleet.plugins.columns.column_lock import ColumnLock, ColumnWriter
from tests.small_output import rendered

QUALITY = pa.schema([late_field("quality", pa.float64(), "a question")])
OTHER = pa.schema([late_field("looks", pa.float64())])


def lock(store: Store, columns: pa.Schema = QUALITY, *, renders: bool = False) -> ColumnLock:
    return ColumnLock(store, columns, renders=renders, beat_s=0.05, expiry_s=0.3)


def put(lock: ColumnLock, store: Store, values: Mapping[int, float], name: str = "quality") -> None:
    for record in framefleet.read_records(store.url_of("")).to_pylist():
        if record["seed"] in values:
            lock.put(record, {name: values[record["seed"]]})
    lock.flush()


def quality(store: Store) -> list[float | None]:
    return [row.get("quality") for row in framefleet.read_records(store.url_of("")).to_pylist()]


def send_elsewhere(store: Store, epoch: int) -> None:
    """Have a writer be of another machine, where its process cannot be seen."""
    path = epoch_path(epoch, COLUMN_LOCKS)
    writer = ColumnWriter.parse(store.read(path))
    assert writer is not None
    store.write(path, replace(writer, host="far-away", machine="another boot", ended=False).to_bytes())


def test_the_later_epoch_counts_whatever_the_clock_says(store: Store) -> None:
    rendered(store, 2)
    schema = pa.schema([("row_id", pa.string()), *QUALITY])  # as version 0.1.0 writes and names parts
    old = PartWriter(store, SCORES, schema, run=f"000000-99990101T120000-{'a' * 8}")
    for record in framefleet.read_records(store.url_of("")).to_pylist():
        old.add(None, {"row_id": record["row_id"], "quality": 1.0})
    old.flush()
    assert quality(store) == [1.0, 1.0]
    for value in (2.0, 3.0):
        with lock(store) as ours:
            put(ours, store, {0: value, 1: value})
            put(ours, store, {1: value + 0.5})
    assert quality(store) == [3.0, 3.5]


def test_who_fills_in_the_same_column_or_asks_the_same_question_is_told_who_does(store: Store) -> None:
    same = pa.schema([late_field("again", pa.float64(), "a question")])
    with lock(store):
        for columns in (QUALITY, same):
            with pytest.raises(JobError, match=r"quality is being filled by pid \d+ on .+ since"):
                lock(store, columns).__enter__()
        with lock(store, OTHER, renders=True):
            for columns, kind in ((OTHER, OutputInUse), (QUALITY, JobError)):
                with pytest.raises(kind):
                    lock(store, columns).__enter__()
        with lock(store, OTHER):
            pass
    with lock(store):
        pass


def test_parts_of_a_writer_that_was_replaced_do_not_count(store: Store) -> None:
    rendered(store, 3)
    first = ColumnLock(store, QUALITY, beat_s=600)
    first.__enter__()
    put(first, store, {0: 1.0})
    send_elsewhere(store, 1)  # and it stands still
    with lock(store) as second:
        assert not first.still_ours()
        with pytest.raises(StoreError, match="not the newest lock"):
            first.check()
        put(second, store, {1: 2.0})
        with pytest.raises(StoreError, match="not the newest lock"):
            put(first, store, {1: 9.0, 2: 9.0})
        assert quality(store) == [1.0, 2.0, None]
        num_parts = len(store.list(SCORES))
    with lock(store):
        assert quality(store) == [1.0, 2.0, None] and len(store.list(SCORES)) == num_parts - 1


def test_a_writer_of_other_columns_goes_on_when_one_is_replaced(store: Store) -> None:
    rendered(store, 2)
    with lock(store, OTHER) as other:
        ColumnLock(store, QUALITY, beat_s=600).__enter__()
        send_elsewhere(store, 2)
        with lock(store):
            put(other, store, {0: 5.0}, "looks")
            other.check()
        with lock(store), pytest.raises(JobError, match="looks is being filled by"):
            lock(store, OTHER).__enter__()
        rows = framefleet.read_records(store.url_of("")).to_pylist()
        assert [row["looks"] for row in rows] == [5.0, None]


def test_a_file_that_nobody_can_read_is_taken_over_as_one_of_a_writer_that_stands_still(store: Store) -> None:
    rendered(store, 1)
    with lock(store) as ours:
        put(ours, store, {0: 1.0})
    store.write(epoch_path(2, COLUMN_LOCKS), b"[]")
    with lock(store) as ours:
        assert ours.epoch == 3 and quality(store) == [1.0]
    store.delete_all(COLUMN_LOCKS)
    with lock(store) as ours:
        assert ours.epoch == 2, "parts say how far epochs went"
        assert isinstance(ColumnWriter.read(store, 2), ColumnWriter)
