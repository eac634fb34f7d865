"""A driver that takes over seals what is there: what its predecessor still writes does not count."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from framefleet import Store, StoreError
from framefleet.cluster.driver.lock import DriverLock
from framefleet.pipeline.outputs.layout import RECORDS
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
from tests.outputs import committed_row_ids
from tests.parts import records_in
from tests.rows import record


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
