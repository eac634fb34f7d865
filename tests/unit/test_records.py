"""Columns are as designed, parts hold what was added, and what is committed can be read back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framefleet import JobError, Store, StoreError, TableError
from framefleet.pipeline.outputs.parts import part_file
from framefleet.pipeline.outputs.parts.part_file import JOB, metadata_of
from framefleet.pipeline.outputs.parts.parts import PartWriter, find_record, job_in_parts
from framefleet.pipeline.outputs.parts.records import (
    FIRST_FIELDS,
    RECORD_FIELDS,
    failure_schema,
    invalid_schema,
    record_schema,
    values_of,
)
from framefleet.pipeline.outputs.parts.seals import new_run
from tests.jobs import all_columns
from tests.outputs import committed_row_ids
from tests.parts import records_in
from tests.rows import NOON, failure, record
from tests.small_output import rendered

CARRIED = pa.schema([("id", pa.string()), ("score", pa.float32())])
NOTHING = pa.schema([])


def records(store: Store, carried: pa.Schema = NOTHING, run: str = "r1") -> PartWriter:
    return PartWriter(store, "records", record_schema(carried), run=run)


def carried_row(number: int) -> pa.RecordBatch:
    return pa.record_batch({"id": [f"id-{number}"], "score": [number / 2]}, schema=CARRIED)


def test_baggage_of_other_tools_is_left_behind() -> None:
    field = pa.field("id", pa.string(), metadata={"PARQUET:field_id": "1"})
    schema = record_schema(pa.schema([field], metadata={"pandas": "{}"}))
    assert schema.metadata is None
    assert schema.field("id").metadata is None


@pytest.mark.parametrize(
    ("make", "name"), [(record_schema, "uri"), (failure_schema, "message"), (invalid_schema, "reason")]
)
def test_a_carried_column_with_one_of_our_names_is_refused(make: object, name: str) -> None:
    with pytest.raises(TableError, match=name) as caught:
        make(pa.schema([(name, pa.string())]))  # type: ignore[operator]
    assert "rename" in caught.value.fix


def test_a_part_holds_what_was_added_and_is_named_by_run_number_and_digest(store: Store) -> None:
    writer = records(store, CARRIED)
    for number in (1, 2):
        writer.add(carried_row(number), values_of(record(number)))
    assert writer.rows_waiting == 2
    (path,) = writer.flush()
    content = store.read(path)
    assert pq.ParquetFile(pa.BufferReader(content)).metadata.row_group(0).column(0).compression == "ZSTD"
    digest = hashlib.sha256(content).hexdigest()
    assert path == f"records/part-r1-000001-{digest[:16]}.parquet"
    assert writer.rows_waiting == 0
    writer.add(carried_row(3), values_of(record(3)))
    assert re.fullmatch(r"records/part-r1-000002-\w{16}\.parquet", *writer.flush())
    table = all_columns(store, "records")
    assert table.schema.equals(record_schema(CARRIED)) and table.column_names[:2] == CARRIED.names
    assert table["id"].to_pylist() == ["id-1", "id-2", "id-3"]
    assert find_record(store, f"{2:032x}") == record(2)
    assert records_in(store)["row_id"].to_pylist() == [f"{number:032x}" for number in (1, 2, 3)]
    assert records_in(store).column_names == RECORD_FIELDS.names


def test_a_part_is_due_after_256_rows_or_5_seconds(store: Store) -> None:
    writer = records(store)
    assert not writer.due(0.0)
    writer.add(None, values_of(record(1)))
    assert [writer.due(now_s) for now_s in (100.0, 104.9, 105.0)] == [False, False, True]
    writer.flush()
    for number in range(255):
        writer.add(None, values_of(record(number)))
    assert not writer.due(200.0)
    writer.add(None, values_of(record(255)))
    assert writer.due(200.0)


@pytest.mark.parametrize("is_stored", [False, True], ids=["not stored", "stored, the answer lost"])
def test_a_failed_flush_may_be_repeated_and_never_writes_rows_twice(is_stored: bool, tmp_path: Path) -> None:
    class Losing(Store):
        answers = False

        def create(self, path: str, content: bytes) -> None:
            if is_stored or self.answers:
                super().create(path, content)
            if not self.answers:
                raise StoreError("no answer")

    writer = records(store := Losing(str(tmp_path)))
    writer.add(None, values_of(record(1)))
    with pytest.raises(StoreError):
        writer.flush()
    store.answers = True
    assert writer.due(0.0)
    writer.add(None, values_of(record(2)))
    assert len(writer.flush()) == 2
    assert committed_row_ids(store) == [[f"{number:032x}"] for number in (1, 2)]
    assert writer.flush() == []


def test_each_part_tells_the_job_and_a_long_one_only_the_first(store: Store) -> None:
    for job in ('{"job": 1}', "x" * 40_000):
        writer = PartWriter(store, "records", record_schema(NOTHING), run=f"r{len(job)}", job=job)
        paths = []
        for number in (1, 2):
            writer.add(None, values_of(record(number)))
            paths += writer.flush()
        told = [metadata_of(store, path).get(JOB) for path in paths]
        assert told == ([job, job] if len(job) < 100 else [job, None])
    assert job_in_parts(store) == "x" * 40_000


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1], lambda content: content[:99] + b"?" + content[100:]]
)
def test_a_part_with_other_bytes_than_its_name_says_is_an_error_that_names_repair(
    damage: Callable[[bytes], bytes], store: Store
) -> None:
    writer = records(store)
    writer.add(None, values_of(record(1)))
    (path,) = writer.flush()
    store.write(path, damage(store.read(path)))
    for read in (lambda: committed_row_ids(store), lambda: find_record(store, f"{1:032x}")):
        with pytest.raises(JobError, match=rf"{path} is damaged") as caught:
            read()
        assert "framefleet repair" in caught.value.fix


def test_of_records_that_are_doubled_the_last_counts(store: Store) -> None:
    for run, numbers in (("r1", (1, 2)), ("000001-20260102T030405-89abcdef", (2, 3))):
        writer = records(store, run=run)
        for number in numbers:
            writer.add(None, values_of(record(number, worker=run)))
        writer.flush()
    assert find_record(store, f"{2:032x}").worker == "000001-20260102T030405-89abcdef"
    found = records_in(store).select(["row_id", "worker"]).to_pylist()
    assert [row["worker"][:2] for row in sorted(found, key=lambda row: row["row_id"])] == ["r1", "00", "00"]


def test_a_copied_part_doubles_its_rows(store: Store) -> None:
    writer = records(store)
    writer.add(None, values_of(record(1)))
    (path,) = writer.flush()
    copy = path.replace(".parquet", " (copy).parquet")
    store.write(copy, store.read(path))
    assert committed_row_ids(store) == [[f"{1:032x}"]] * 2
    assert records_in(store).num_rows == 1


@pytest.mark.parametrize("name", [".DS_Store", "README", "_SUCCESS", "part-1.parquet.crc", ".x.parquet"])
def test_other_files_among_parts_stay(name: str, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    writer = records(store)
    writer.add(None, values_of(record(1)))
    writer.flush()
    store.write(f"records/{name}", b"x")
    with caplog.at_level("INFO"):
        assert committed_row_ids(store) == [[f"{1:032x}"]]
    assert name in caplog.text
    assert find_record(store, f"{1:032x}") == record(1)


def test_failures_and_refused_rows_are_written_the_same_way(store: Store) -> None:
    failures = PartWriter(store, "failures", failure_schema(CARRIED), run="r1")
    failures.add(carried_row(1), values_of(failure(message="broken \ud800 text", failed_at=NOON)))
    invalid = PartWriter(store, "invalid", invalid_schema(CARRIED), run="r1")
    invalid.add(carried_row(2), {"row_index": 2, "reason": "num_frames is 80", "fix": "use 81"})
    read = [pq.read_table(pa.BufferReader(store.read(*writer.flush()))) for writer in (failures, invalid)]
    assert read[0]["message"].to_pylist() == ["broken ? text"]
    assert read[0]["workers"].to_pylist() == [["worker-1", "worker-2"]]
    assert read[1].to_pylist() == [
        {"id": "id-2", "score": 1.0, "row_index": 2, "reason": "num_frames is 80", "fix": "use 81"}
    ]


def test_an_output_without_records_has_none(store: Store) -> None:
    assert committed_row_ids(store) == []
    assert records_in(store).num_rows == 0
    with pytest.raises(JobError, match="no record of row"):
        find_record(store, "0" * 32)


def test_a_record_is_found_by_the_first_digits_and_by_the_name_of_its_clip(store: Store) -> None:
    row_id = rendered(store, 4)[0]["row_id"]
    for name in (row_id, row_id[:4], f"{row_id}.mp4", f"clips/{row_id[:2]}/{row_id}-0123abcd.mp4"):
        assert find_record(store, name).row_id == row_id
    with pytest.raises(JobError, match="too short for a row_id"):
        find_record(store, row_id[:3])
    writer = records(store, run=new_run(2))
    writer.add(None, values_of(record(0)) | {"row_id": row_id[:8] + "0" * 24})
    writer.flush()
    with pytest.raises(JobError, match="2 rows that begin with " + row_id[:6]):
        find_record(store, row_id[:6])
    assert find_record(store, row_id).row_id == row_id


ROW: dict[str, Any] = values_of(record(1)) | {"row_indices": [3, 7]}
LATIN = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\4\0\0\0"), pa.py_buffer(b"caf\xe9")]
)
DAMAGED: dict[str, Any] = {
    "a row_id that is none": {"row_id": "../../../etc/passwd"},
    "no row_id": {"row_id": None},
    "a number as row_id": {"row_id": 7},
    "a list as row_id": {"row_id": ["0" * 32]},
    "no uri": {"uri": None},
    "a digest with code": {"model_digest": '"""\nimport os'},
    "a digest that is none": {"frames_sha256": "b" * 63},
    "a text as seed": {"seed": "x"},
    "neither frames nor sound": {"frames_sha256": None, "audio_sha256": None},
    "a time beyond all": {"started_at": pa.scalar(2**62, pa.timestamp("us", "UTC"))},
    "text in Latin-1": {"prompt": LATIN, "arguments": LATIN},
}


@pytest.mark.parametrize("changed", DAMAGED.values(), ids=DAMAGED)
def test_a_record_of_other_values_is_an_error(store: Store, tmp_path: Path, changed: dict[str, Any]) -> None:
    write_part(tmp_path / "out", {name: changed.get(name, value) for name, value in ROW.items()})
    with pytest.raises(JobError, match=r"records/part-x\.parquet"):
        find_record(store, ROW["row_id"])


def test_a_column_that_a_part_lacks_is_named(store: Store, tmp_path: Path) -> None:
    for name in FIRST_FIELDS.names:
        write_part(tmp_path / "out", {other: value for other, value in ROW.items() if other != name})
        with pytest.raises(JobError, match=rf"part-x\.parquet .* has no column '{name}'"):
            find_record(store, ROW["row_id"])


@pytest.mark.parametrize("name", ["row_id", "a.b", "a.b.c", ".", ""])
def test_a_small_part_of_large_cells_is_refused_before_they_are_unpacked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_file, "MAX_PART_BYTES", 1 << 20)
    for cells, is_dictionary in ((["a" * 10_000] * 1000, True), (["a" * (1 << 20)] * 2, False)):
        column = pa.array(cells)
        for one in (column, pa.StructArray.from_arrays([column], ["b.c"])):
            table = pa.table({name: one})
            pq.write_table(table, tmp_path / "x.parquet", compression="zstd", use_dictionary=is_dictionary)
            assert (tmp_path / "x.parquet").stat().st_size < 5000
            for fields in (None, table.schema):
                with pytest.raises(JobError, match="unpacks to more than"):
                    part_file.read_part(Store(str(tmp_path)), "x.parquet", fields)


def test_a_small_part_of_long_lists_is_refused_before_they_are_unpacked(store: Store, tmp_path: Path) -> None:
    zeros = pa.nulls(20_000_000, pa.int64()).fill_null(0)
    lists = pa.ListArray.from_arrays([0, len(zeros)], zeros)
    write_part(tmp_path / "out", {**ROW, "row_indices": lists}, times=8)
    assert (tmp_path / "out" / "records" / "part-x.parquet").stat().st_size < 1 << 20
    with pytest.raises(JobError, match="unpacks to more than"):
        find_record(store, ROW["row_id"])


def write_part(folder: Path, row: dict[str, Any], *, times: int = 1) -> None:
    (folder / "records").mkdir(parents=True, exist_ok=True)
    columns = {
        name: value if isinstance(value, pa.Array) else pa.array([value]) for name, value in row.items()
    }
    table = pa.table(columns)
    with pq.ParquetWriter(folder / "records" / "part-x.parquet", table.schema) as writer:
        for _ in range(times):
            writer.write_table(table)
