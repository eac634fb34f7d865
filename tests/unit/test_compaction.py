"""`framefleet compact`: fewer parts, the same records at every moment."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest

import framefleet
from framefleet import JobError, Output, Store
from framefleet.api.outputs import RECORDS, DriverLock
from framefleet.pipeline.outputs.parts import part_file
from framefleet.pipeline.outputs.parts.parts import PartWriter, find_record, job_in_parts, read_parts
from framefleet.pipeline.outputs.parts.records import record_schema, values_of
from framefleet.pipeline.outputs.parts.seals import gone_parts, live_parts, new_run
from framefleet.plugins.compact import compaction
from tests.commands import command
from tests.rows import record

NUM_ROWS, ROWS_OF_A_PART = 200, 4
TAGS = pa.schema([("tag", pa.string())])
JOB = '{"job": {"output": "here"}}'


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output of 50 parts of one run, whose rows ended from the last of the table to the first."""
    store = Store(str(tmp_path))
    store.write("job.json", JOB.encode())
    with DriverLock(store) as lock:
        write_parts(store, range(NUM_ROWS - 1, -1, -1), epoch=lock.epoch)
    return store


def write_parts(store: Store, numbers: Iterable[int], *, epoch: int) -> None:
    writer = PartWriter(store, RECORDS, record_schema(TAGS), run=new_run(epoch), job=JOB)
    for number in numbers:
        tag = pa.RecordBatch.from_pydict({"tag": [f"row {number}"]}, TAGS)
        writer.add(tag, values_of(record(number, row_indices=(number,))))
        if writer.rows_waiting == ROWS_OF_A_PART:
            writer.flush()
    writer.flush()


def records_in(store: Store) -> list[dict[str, object]]:
    tables = list(Output(store).records())
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["row_id"])


def test_many_parts_become_one_in_the_order_of_the_table(store: Store) -> None:
    before = records_in(store)
    found = framefleet.compact(store.url_of(""))
    assert (found.num_before, found.num_after, found.num_rows_merged) == (50, 1, NUM_ROWS)
    assert len(store.list(RECORDS)) == 1
    assert records_in(store) == before and len(before) == NUM_ROWS
    indices = [row["row_indices"][0] for table in Output(store).records() for row in table.to_pylist()]
    assert indices == list(range(NUM_ROWS))
    assert find_record(store, f"{7:032x}").row_indices == (7,)
    assert job_in_parts(store) == JOB
    assert not gone_parts(store)


def test_large_parts_and_those_of_people_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = store.list(RECORDS)[:1]
    store.move(path, f"{RECORDS}/from-elsewhere.parquet")
    framefleet.compact(store.url_of(""))
    with DriverLock(store) as lock:
        write_parts(store, range(NUM_ROWS, NUM_ROWS + 40), epoch=lock.epoch)
    sizes = {path: stored.size for path, stored in store.details(RECORDS).items()}
    large = max(sizes, key=lambda path: sizes[path])
    monkeypatch.setattr(compaction, "LARGE_BYTES", 2 * sizes[large])
    found = framefleet.compact(store.url_of(""))
    assert found.num_rows_merged == 40 and found.num_after < found.num_before
    assert {large, f"{RECORDS}/from-elsewhere.parquet"} < set(store.list(RECORDS))
    assert len(records_in(store)) == NUM_ROWS + 40


def test_parts_of_other_columns_are_put_together_by_themselves(store: Store) -> None:
    with DriverLock(store) as lock:
        writer = PartWriter(store, RECORDS, record_schema(pa.schema([])), run=new_run(lock.epoch))
        for number in range(NUM_ROWS, NUM_ROWS + 2):  # one without a place in the table
            writer.add(None, values_of(record(number, row_indices=(5,) if number % 2 else ())))
            writer.flush()
    before = records_in(store)
    assert framefleet.compact(store.url_of("")).num_after == 2
    assert records_in(store) == before and sum(row["tag"] is None for row in before) == 2


# Parts by their carried column and the places in the table of their rows, by number; a job repeats the number
# of its part.
_FEW, _MANY = {0: 0, 1: 1}, dict.fromkeys(range(1000), 0)
DOUBLES: dict[str, list[tuple[str, dict[int, int]]]] = {
    "in parts of other columns": [("a", _FEW), ("a", _FEW), ("b", _FEW), ("b", _FEW)] * 4,
    "at another place in the table": [("a", {0: 5}), ("a", {0: 2})],
    "in a part that is large already": [("a", _FEW), ("a", _FEW), ("a", _MANY)],
    "in all rows of earlier parts": [("a", _FEW), ("a", _FEW), ("b", _FEW)],
}


@pytest.mark.parametrize("parts", DOUBLES.values(), ids=DOUBLES)
def test_the_same_record_of_a_row_counts_afterwards(
    parts: list[tuple[str, dict[int, int]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    store.write("job.json", JOB.encode())
    for number, (column, places) in enumerate(parts):
        schema = pa.schema([(column, pa.string())])
        run = f"000001-20260102T120000-{number:08x}"
        writer = PartWriter(store, RECORDS, record_schema(schema), run=run, job=str(number))
        for row, place in places.items():
            cell = pa.RecordBatch.from_pydict({column: ["x"]}, schema)
            writer.add(cell, values_of(record(row, row_indices=(place,), worker=str(number))))
        (path,) = writer.flush()
    if parts[-1][1] is _MANY:
        monkeypatch.setattr(compaction, "LARGE_BYTES", 2 * store.details(RECORDS)[path].size)
    before, job = records_in(store), job_in_parts(store)
    assert framefleet.compact(store.url_of("")).num_after < len(parts)
    assert records_in(store) == before
    assert job_in_parts(store) == job == str(len(parts) - 1)


def test_parts_that_could_not_be_read_as_one_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = records_in(store)
    monkeypatch.setattr(part_file, "MAX_PART_BYTES", 1 << 16)
    found = framefleet.compact(store.url_of(""))
    assert (found.num_before, found.num_after, found.num_rows_merged) == (50, 50, 0)
    assert records_in(store) == before


def test_who_had_listed_parts_is_told_that_they_were_merged(store: Store) -> None:
    tables = Output(store).records()
    next(tables)
    listed = [part.path for part in live_parts(store)]
    framefleet.compact(store.url_of(""))
    with pytest.raises(JobError, match="it was replaced while it was read"):
        list(read_parts(store, listed, None))


@pytest.mark.parametrize(
    ("num_before", "num_rows", "age_s"), [(0, 256, 5), (1024, 512, 10), (9999, 8192, 160)]
)
def test_the_more_parts_there_are_the_more_rows_the_next_one_has(
    num_before: int, num_rows: int, age_s: int, tmp_path: Path
) -> None:
    writer = PartWriter(
        Store(str(tmp_path)), RECORDS, record_schema(TAGS), run="0-run", num_before=num_before
    )
    tag = pa.RecordBatch.from_pydict({"tag": ["x"]}, TAGS)
    values = values_of(record(0))
    writer.add(tag, values)
    assert not writer.due(7.0) and not writer.due(7.0 + age_s - 0.1) and writer.due(7.0 + age_s)
    for _ in range(num_rows - 2):
        writer.add(tag, values)
    assert not writer.due(7.0)
    writer.add(tag, values)
    assert writer.due(7.0)


def test_what_cannot_be_compacted_is_refused_with_a_fix(store: Store) -> None:
    with DriverLock(store), pytest.raises(JobError, match="is being written by"):
        framefleet.compact(store.url_of(""))
    path = Path(store.url_of(store.list(RECORDS)[3]))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(JobError, match="damaged") as caught:
        framefleet.compact(store.url_of(""))
    assert "framefleet repair" in caught.value.fix
    assert len(store.list(RECORDS)) == 50
    with pytest.raises(JobError, match="is not an output"):
        framefleet.compact(store.url_of("nowhere"))


def test_the_command_says_how_many_there_were(store: Store) -> None:
    found = command("compact", store.url_of(""))
    assert (found.exit_code, found.stdout.strip()) == (0, "parts of records: 50 before, 1 now")
    found = command("compact", store.url_of(""), "--json")
    assert json.loads(found.stdout) == {"num_before": 1, "num_after": 1, "num_rows_merged": 0}
