"""Who writes an output or a column seals what others left: epochs decide what counts, and no clock."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
import pytest

import framefleet
from framefleet import JobError, OutputInUse, Store, StoreError
from framefleet.cluster.driver.lock import DriverLock
from framefleet.pipeline.outputs.columns import late_field
from framefleet.pipeline.outputs.layout import COLUMN_LOCKS, RECORDS, SCORES
from framefleet.pipeline.outputs.parts.parts import PartWriter, find_record, replace_part
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.pipeline.outputs.parts.seals import (
    MAX_GONE,
    epoch_path,
    gone_parts,
    new_run,
    newest_seal,
    part_of,
    parts_in,
    sweep_late,
)
from framefleet.plugins.columns.column_lock import ColumnLock, ColumnWriter
from tests.outputs import committed_row_ids, records_in, write_part
from tests.rows import record
from tests.small_output import rendered


def writer(store: Store, lock: DriverLock) -> PartWriter:
    return PartWriter(store, RECORDS, RECORD_FIELDS, run=new_run(lock.epoch))


def write(part: PartWriter, number: int) -> str:
    part.add(None, values_of(record(number)))
    (path,) = part.flush()
    return path


def committed(store: Store) -> list[int]:
    return sorted(int(row_id, 16) for row_ids in committed_row_ids(store) for row_id in row_ids)


@contextmanager
def taken_over(store: Store) -> Iterator[tuple[DriverLock, PartWriter, DriverLock]]:
    """Yield a driver with its writer, which wrote row 1, and another that found it silent and took over."""
    first = DriverLock(store, beat_s=60)
    first.__enter__()
    part = writer(store, first)
    write(part, 1)
    held = store.read(epoch_path(1)).replace(b'"machine": "', b'"machine": "another ')
    store.write(epoch_path(1), held)
    with DriverLock(store, beat_s=0.05, expiry_s=0.1) as second:
        yield first, part, second


def test_a_part_that_lands_after_a_takeover_is_ignored_by_every_reader_and_swept(store: Store) -> None:
    with taken_over(store) as (first, late, second):
        path = write(late, 2)
        with pytest.raises(StoreError):  # it has lost the lock
            sweep_late(store, first)
        assert store.exists(path)
        assert committed(store) == [1]
        assert records_in(store).num_rows == 1
        with pytest.raises(Exception, match="no record of row"):
            find_record(store, f"{2:032x}")
        write(writer(store, second), 2)
        assert sweep_late(store, second) == [path]
        assert committed(store) == [1, 2]
    with DriverLock(store) as third:
        assert sweep_late(store, third) == []
    assert committed(store) == [1, 2]


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b'{"sealed": 7}', b'{"sealed": {"r": [[1]]}}'])
def test_a_seal_that_nobody_can_read_hides_nothing(content: bytes, store: Store) -> None:
    for number in (1, 2):
        with DriverLock(store) as lock:
            write(writer(store, lock), number)
    store.write(epoch_path(2), content)
    assert committed(store) == [1, 2]


def test_parts_of_earlier_versions_and_of_people_count_in_every_epoch(store: Store) -> None:
    for run in ("20260102T030405-89abcdef", "r1"):
        part = PartWriter(store, RECORDS, RECORD_FIELDS, run=run)
        write(part, len(run))
    with DriverLock(store):
        pass
    with DriverLock(store):
        assert committed(store) == [2, 24]


def test_a_sealed_part_that_is_gone_is_found(store: Store) -> None:
    with DriverLock(store) as lock:
        paths = [write(part := writer(store, lock), 1), write(part, 2), write(part, 3)]
    with DriverLock(store):
        assert gone_parts(store) == []
        store.delete(paths[1])
        assert gone_parts(store) == [paths[1].rpartition("-")[0]]
    with DriverLock(store):
        assert newest_seal(store).sealed == {paths[0].split("part-")[1].rsplit("-", 2)[0]: [(1, 1), (3, 3)]}
        assert gone_parts(store) == []


def test_a_part_that_goes_while_a_driver_writes_or_after_it_is_found(store: Store) -> None:
    with DriverLock(store) as lock:
        earlier = write(writer(store, lock), 1)
    with DriverLock(store) as lock:
        paths = [write(part := writer(store, lock), 2), write(part, 3)]
        assert gone_parts(store) == []
        store.delete(earlier)
    for path in paths:
        store.delete(path)
    assert gone_parts(store) == [path.rpartition("-")[0] for path in (earlier, *paths)]


@pytest.mark.parametrize("stretch", [[0, 10**12], [-(10**12), 10**4000], [10**4000, 10**4001]])
@pytest.mark.parametrize("run", ["x", "x" * 1_000_000])
def test_a_seal_of_any_length_takes_little_memory(stretch: list[int], run: str, store: Store) -> None:
    for more in ({}, {"merged": {run: [stretch]}}):
        seal = {"sealed": {run: [stretch, [1, 2]]}, **more}
        store.write(epoch_path(1), json.dumps({"epoch": 1, **seal}).encode())
        names = gone_parts(store)
        assert len(names) <= MAX_GONE and sum(map(len, names)) < 1 << 24


class Undeleting(Store):
    def delete(self, path: str) -> None:
        raise StoreError("killed", "")


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("num_between", [0, 2])
def test_whoever_opens_the_output_next_finishes_what_a_killed_driver_replaced(
    store: Store, leaves: bool, num_between: int
) -> None:
    # Have a driver put another part in place of one, without row 1, and end before that is deleted.
    with DriverLock(store) as lock:
        part = writer(store, lock)
        part.add(None, values_of(record(1)))
        path = write(part, 2)
    driver = DriverLock(store, beat_s=60)
    driver.__enter__()
    with pytest.raises(StoreError) as killed:
        run = new_run(driver.epoch)
        replace_part(Undeleting(store.url_of("")), path, [record(1).row_id], run=run, number=1, hold=driver)
    if leaves:
        driver.__exit__(StoreError, killed.value, None)
    else:
        held = store.read(epoch_path(driver.epoch)).replace(b'"machine": "', b'"machine": "another ')
        store.write(epoch_path(driver.epoch), held)
    assert committed(store) == [1, 2, 2]
    said = json.loads(store.read(epoch_path(2))) | {"sealed": None, "ended": False, "machine": "another"}
    for number in range(num_between):  # killed before they finished it, or sealed anything
        store.write(epoch_path(3 + number), json.dumps(said).encode())
    with DriverLock(store, beat_s=0.05, expiry_s=0.1):
        assert committed(store) == [2]
    assert gone_parts(store) == []


DIGEST, DAY = "0123456789abcdef", "20260102T030405"


@pytest.mark.parametrize(
    ("name", "epoch", "number", "digest"),
    [
        (f"part-000007-{DAY}-89abcdef-000012-{DIGEST}", 7, 12, DIGEST),
        (f"part-000007-{DAY}-12345678-000012-{'1' * 16}", 7, 12, "1" * 16),
        (f"part-{DAY}-89abcdef-000012", 0, 12, ""),
        (f"part-{DAY}-12345678-000012", 0, 12, ""),
        (f"part-1000000-{DAY}-89abcdef-1000000-{DIGEST}", 10**6, 10**6, DIGEST),
        ("part-x", 0, 0, ""),
        (f"part-000007-{DAY}-89abcdef-000012-{DIGEST} copy", 0, 0, ""),
        ("all", 0, 0, ""),
    ],
)
def test_a_name_tells_epoch_number_and_digest(name: str, epoch: int, number: int, digest: str) -> None:
    part = part_of(f"records/{name}.parquet")
    assert part is not None
    assert (part.epoch, part.number, part.digest) == (epoch, number, digest)


def test_parts_sort_as_they_were_written(store: Store) -> None:
    numbers = (("000002", DAY, 1), ("000010", "20250102T030405", 1), ("000010", "20250102T030405", 2))
    names = ["a", f"part-{DAY}-89abcdef-000001"]
    names += [f"part-{epoch}-{day}-89abcdef-{number:06d}-{DIGEST}" for epoch, day, number in numbers]
    for name in reversed(names):
        store.write(f"records/{name}.parquet", b"")
    assert [part.path for part in parts_in(store, RECORDS)] == [f"records/{name}.parquet" for name in names]


QUALITY = pa.schema([late_field("quality", pa.float64(), "a question")])
OTHER = pa.schema([late_field("looks", pa.float64())])


def lock(store: Store, columns: pa.Schema = QUALITY, *, renders: bool = False) -> ColumnLock:
    return ColumnLock(store, columns, renders=renders, beat_s=0.05, expiry_s=0.3)


def put(lock: ColumnLock, store: Store, values: Mapping[int, float], name: str = "quality") -> None:
    for row in framefleet.read_records(store.url_of("")).to_pylist():
        if row["seed"] in values:
            lock.put(row, {name: values[row["seed"]]})
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
    rows = framefleet.read_records(store.url_of(""), columns=["row_id"]).to_pylist()
    run = f"000000-99990101T120000-{'a' * 8}"
    write_part(store, SCORES, schema, [row | {"quality": 1.0} for row in rows], run)
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


@pytest.mark.parametrize(
    "path", ["columns/999999999.json", "scores/part-999999999-20260102T130000-89abcdef-000001.parquet"]
)
def test_a_file_that_leaves_no_later_epoch_of_columns_is_named(path: str, store: Store) -> None:
    store.write(path, b"{}")
    for _ in range(2):
        with pytest.raises(JobError, match="epoch 999999999, and there is none after it"):
            lock(store).__enter__()
    assert store.list("") == [path]


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
