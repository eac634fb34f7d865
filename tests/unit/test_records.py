"""Columns are as designed, parts hold what was added, and what is committed can be read back."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import framefleet
from framefleet import JobError, Request, Store, StoreError, TableError
from framefleet.api.clips import FileStep, Media, MediaFormat, StepInput
from framefleet.api.jobs import Claim
from framefleet.pipeline.outputs.encode_clip import encode_input
from framefleet.pipeline.outputs.frames.frames import Pictures, to_pixels
from framefleet.pipeline.outputs.frames.result import Audio, audio_sha256
from framefleet.pipeline.outputs.layout import clip_path
from framefleet.pipeline.outputs.parts import part_file
from framefleet.pipeline.outputs.parts.part_file import JOB, metadata_of
from framefleet.pipeline.outputs.parts.parts import PartWriter, find_record, job_in_parts, replace_part
from framefleet.pipeline.outputs.parts.record_tables import (
    ScoreIndex,
    record_schema_of,
    record_tables,
    taken_columns,
)
from framefleet.pipeline.outputs.parts.records import (
    FIRST_FIELDS,
    RECORD_FIELDS,
    failure_schema,
    invalid_schema,
    record_schema,
    values_of,
)
from framefleet.pipeline.outputs.parts.seals import new_run
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.plugins.keep.record_law import RecordLaw
from tests.each import check_each
from tests.gallery_output import clip_of
from tests.jobs import all_columns
from tests.outputs import Held, committed_row_ids, records_in, write_records, write_scores
from tests.rows import NOON, failure, record, row_id
from tests.small_output import rendered

COUNT_THREADS = """
import os, sys
from framefleet import Store
from framefleet.pipeline.outputs.parts.part_file import read_part
threads = lambda: [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
before = threads()
assert len(read_part(Store(sys.argv[1]), sys.argv[2], None)) == 3
print(len([name for name in threads() if "jemalloc" not in name]) - len(before))
"""
CARRIED = pa.schema([("id", pa.string()), ("score", pa.float32())])
NOTHING = pa.schema([])


def records(store: Store, carried: pa.Schema = NOTHING, run: str = "r1") -> PartWriter:
    return PartWriter(store, "records", record_schema(carried), run=run)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_no_thread_of_arrow_holds_a_part_when_python_ends(tmp_path: Path) -> None:
    part = write_records(tmp_path, "r1", range(3))
    command = [sys.executable, "-c", COUNT_THREADS, str(tmp_path), part]
    counted = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(counted.stdout) <= 0


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
    for read in (
        lambda: committed_row_ids(store),
        lambda: find_record(store, f"{1:032x}"),
        lambda: framefleet.read_records(store.url_of("")),
    ):
        with pytest.raises(JobError, match=rf"{path} is damaged") as caught:
            read()
        assert "framefleet repair" in caught.value.fix


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


def test_a_record_is_found_by_the_first_digits_and_by_the_name_of_its_clip(store: Store) -> None:
    row_id = rendered(store, 4)[0]["row_id"]
    for name in (row_id, row_id[:4], f"{row_id}.mp4", f"clips/{row_id[:2]}/{row_id}-0123abcd.mp4"):
        assert find_record(store, name).row_id == row_id
    for short in (row_id[:3], f"{row_id[:3]}.mp4", f"./{row_id[:3]}", f"{row_id[:3]}-0123abcd", "/", ""):
        with pytest.raises(JobError, match=f"'{short}' is too short for a row_id"):
            find_record(store, short)
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


def test_one_long_text_counts_once_and_not_for_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_file, "MAX_PART_BYTES", 1 << 20)
    table = pa.table({"text": ["a" * 10_000, "b", None] + ["c"] * 1000})
    pq.write_table(table, tmp_path / "x.parquet")
    assert part_file.read_part(Store(str(tmp_path)), "x.parquet", None).equals(table)


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


SOUND = Audio(samples=np.zeros((2, 8000), np.float32), sample_rate=8000)
RATES = (0.1, 0.5, 7.5, 12.5, 23.976, 23.98, 24.0, 29.97, 59.94, 99.5, 240.0, 300.0, 1000.0)
RATES += (8 / 3, 14.985, float(np.float32(29.97)), 24_000 / 1001, 30 / 1.001, 125.5, 12.345)
RATES += (float(np.float32(24_000 / 1001)), float(np.float32(12.345)))
STILL: tuple[MediaFormat, ...] = ("png", "png.zip")  # webp and gif are slower


class Narrow(FileStep):
    def frames(self, frames: Pictures, of: StepInput) -> Pictures:
        return frames[1:, :, :32]


def contradiction(
    media: Media, request: Request, *steps: FileStep, digest: str | None = None, **clip: Any
) -> str | None:
    """Return what the law says of the record and the file that are made of a row."""
    of_row = row_id(request, model_digest="0" * 64, numerics={}, recipe_digest=digest)
    rendered = replace(clip_of(1, {}, seed=1), request=request, row_id=of_row, **clip)
    made = encode_input(StepInput(clip=rendered, media=media), steps)
    place = clip_path(of_row, made.suffix)
    record = values_of(made.record) | {"path": place, "uri": f"/out/{place}", "row_indices": (0,)}
    job = {"recipe": request.recipe, "media": {"fps": media.fps, "audio": media.audio}}
    claim = Claim.model_validate({"job": job, "recipe_digest": digest})
    return RecordLaw(claim, record_schema(pa.schema([]))).contradiction(record, made.content)


def pixels(num_frames: int) -> Any:
    return to_pixels(np.zeros((num_frames, 48, 64, 3), np.uint8))


def asked(**changed: Any) -> Request:
    return Request(arguments={"prompt": "a ball"}, **{"seed": 1, "recipe": "generate"} | changed)


def test_any_rate_of_a_row_is_its_own() -> None:
    stills = [(Media(format=format), 1, fps) for format, fps in product(STILL, RATES)]
    videos = product([Media(format="mp4"), Media(format="mkv"), Media(format="webm")], (1, 2, 9), RATES)

    def check(case: tuple[Media, int, float]) -> None:
        media, num_frames, fps = case
        assert contradiction(media, asked(fps=fps), pixels=pixels(num_frames)) is None

    check_each([*stills, *videos], check)


@pytest.mark.parametrize("has_sound", [True, False])
@pytest.mark.parametrize("native_fps", [None, 8.0])
def test_a_sound_that_the_job_drops_may_have_given_the_rate(
    has_sound: bool, native_fps: float | None
) -> None:
    media = Media(format="mkv", audio=has_sound)
    sound = {"audio": SOUND, "audio_sha256": audio_sha256(SOUND)}
    assert contradiction(media, asked(), native_fps=native_fps, **sound) is None


def test_a_step_may_change_the_size_of_a_file() -> None:
    for media in (Media(), Media(format="webp")):
        assert contradiction(media, asked(), Narrow()) is None


def test_a_recipe_of_a_plugin_is_that_of_the_job_and_not_what_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for installed in ("newer", "older"):
        monkeypatch.setitem(BUILT_IN, "theirs", replace(BUILT_IN["generate"], digest=installed))
        assert contradiction(Media(), asked(recipe="theirs"), digest="older") is None


SEED = 2**63 - 1  # of every record


def read(output: Path, *columns: str) -> pa.Table:
    return framefleet.read_records(str(output), columns=columns or None)


def rows(output: Path, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in read(output, *columns).to_pylist()]


def test_an_output_without_records_has_the_columns_of_records_and_no_rows(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"job": {}}')
    assert {"row_id", "seed", "marks"} < {*read(tmp_path).column_names}
    assert rows(tmp_path) == []


def test_records_come_oldest_first_and_of_doubled_ones_the_last_alone(tmp_path: Path) -> None:
    write_records(tmp_path, "000001-20260101T000000-aaaaaaaa", [1, 2, 3])
    write_records(tmp_path, "000002-20260101T000000-aaaaaaaa", [2, 4, 4])
    found = [(row_id[-1], run[5]) for row_id, run in rows(tmp_path, "row_id", "worker")]
    assert found == [("1", "1"), ("3", "1"), ("2", "2"), ("4", "2")]
    assert find_record(Store(str(tmp_path)), f"{2:032x}").worker[5] == "2"


def test_ids_that_differ_in_one_digit_are_two_rows(tmp_path: Path) -> None:
    write_records(tmp_path, "r1", [0, 1, 16**15, 16**16, 16**31, 10, 16**31 + 1])
    assert len(rows(tmp_path, "row_id")) == 7


def test_every_column_of_every_part_is_there_and_null_where_a_part_lacks_it(tmp_path: Path) -> None:
    write_records(tmp_path, "r1", [1], pa.table({"tag": ["a"]}))
    write_records(tmp_path, "r2", [2], pa.table({"note": [7]}))
    table = read(tmp_path)
    assert (table["tag"].to_pylist(), table["note"].to_pylist()) == (["a", None], [None, 7])


def test_parts_of_an_earlier_version_lack_columns_that_are_null_then(tmp_path: Path) -> None:
    old = {name: value for name, value in values_of(record(1)).items() if name in FIRST_FIELDS.names}
    (tmp_path / "records").mkdir()
    pq.write_table(pa.Table.from_pylist([old], FIRST_FIELDS), tmp_path / "records/part-r0-000001.parquet")
    assert rows(tmp_path, "seed", "path", "idle_s") == [(SEED, None, None)]


def test_a_part_in_place_of_another_has_columns_of_its_own(tmp_path: Path) -> None:
    first = write_records(tmp_path, "r1", [1, 2])
    second = write_records(tmp_path, "r2", [3, 4], pa.table({"tag": ["a", "b"]}))
    for number, path in enumerate([first, second], start=1):
        gone = [f"{number * 2:032x}"]
        replace_part(Store(str(tmp_path)), path, gone, run="r3", number=number, hold=Held())
    assert rows(tmp_path, "tag") == [(None,), ("a",)]


YEAR_6325, NANOSECOND = "6325-04-08 15:04:32.000", "1970-01-01 00:00:00.000000001"


@pytest.mark.parametrize(
    ("one", "other", "read"),
    [
        ([1], [2.5], [1.0, 2.5]),
        ([1], ["x"], ["1", "x"]),
        ([[1, None]], ["x"], ["[1, null]", "x"]),
        ([{"a": "é"}], [[1]], ['{"a": "é"}', "[1]"]),
        (pa.array(["a"]).dictionary_encode(), ["b"], ["a", "b"]),
        ([None], ["b"], [None, "b"]),
        ([2**53 + 1], [0.5], ["9007199254740993", "0.5"]),
        ([[2**53 + 1]], [[0.5]], ["[9007199254740993]", "[0.5]"]),
        (pa.array([2**63], pa.uint64()), [-1], ["9223372036854775808", "-1"]),
        (pa.array([1], pa.int32()), pa.array([1], pa.decimal32(5, 2)), ["1", "1.00"]),
        (pa.array([0.5], pa.float16()), pa.array([1], pa.decimal128(5, 2)), ["0.5", "1.00"]),
        (pa.array([2**37], pa.timestamp("s")), pa.array([1], pa.timestamp("ns")), [YEAR_6325, NANOSECOND]),
        ([b"\xff\xe9"], [1], ["\\xff\\xe9", "1"]),
        (pa.array([b"\xff"]).dictionary_encode(), [1], ["\\xff", "1"]),
        (pa.array([b"\xff" * 16], pa.uuid()), [True], ["ffffffff-ffff-ffff-ffff-ffffffffffff", "true"]),
        ([b"\xff"], ["b"], [b"\xff", b"b"]),
        (pa.array(["a"], pa.large_string()), ["b"], ["a", "b"]),
    ],
)
def test_types_that_changed_become_one_type(tmp_path: Path, one: Any, other: Any, read: list[Any]) -> None:
    write_records(tmp_path, "r1", [1], pa.table({"x": one}))
    write_records(tmp_path, "r2", [2], pa.table({"x": other}))
    assert [x for (x,) in rows(tmp_path, "x")] == read


def test_a_type_is_that_of_the_cells_in_every_part(tmp_path: Path) -> None:
    """Of a run, only the first part is asked which columns it has."""
    for number, cell in enumerate((1, 2**53 + 1)):
        write_records(tmp_path, f"r1-{number}", [number], pa.table({"x": [cell], "y": [cell]}))
    write_records(tmp_path, "r2", [2], pa.table({"x": [0.5], "y": [7]}))
    assert rows(tmp_path, "x", "y") == [("1", 1), (str(2**53 + 1), 2**53 + 1), ("0.5", 7)]
    assert record_schema_of(Store(str(tmp_path))).field("x").type == pa.string()
    write_scores(tmp_path, "r1", [0], z=[2**53 + 1])
    write_scores(tmp_path, "r2", [1], z=[0.5])
    assert rows(tmp_path, "z") == [(str(2**53 + 1),), ("0.5",), (None,)]


def test_scores_stand_in_their_rows_and_the_newest_counts(tmp_path: Path) -> None:
    write_records(tmp_path, "r1", [1, 2, 3], scores=pa.table({"sharpness": [0.1, 0.2, 0.3]}))
    write_scores(tmp_path, "r1", [2, 1], sharpness=[0.5, None], is_black=[False, True])
    write_scores(tmp_path, "r2", [2, 9], sharpness=[0.6, 1.0], label=["a cat", "b"])
    found = rows(tmp_path, "sharpness", "is_black", "label")
    assert found == [(0.1, True, None), (0.6, False, "a cat"), (0.3, None, None)]


def test_scores_never_replace_what_records_say_or_carry_though_parts_are_written_anew(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    carried = pa.table({"prompt": ["a cat", "a dog"], "note": [1.5, 2.5]})
    path = write_records(tmp_path, "r1", [1, 2], carried, pa.table({"sharpness": [0.1, 0.2]}))
    replace_part(store, path, [f"{2:032x}"], run="r2", number=1, hold=Held())
    write_scores(tmp_path, "r1", [1], seed=[5], prompt=["x"], note=[9.0], sharpness=[0.9], points=[[1.0]])
    assert rows(tmp_path, "seed", "prompt", "note", "sharpness") == [(SEED, "a cat", 1.5, 0.9)]
    assert "points" not in read(tmp_path).column_names
    assert {"prompt", "note", "seed"} < taken_columns(store)
    assert "sharpness" not in taken_columns(store)


def test_a_score_stands_only_beside_the_clip_that_it_is_of(tmp_path: Path) -> None:
    write_records(tmp_path, "r1", [1, 2], scores=pa.table({"sharpness": [0.1, 0.2]}))
    digests = ["a" * 64] * 2
    write_scores(tmp_path, "r1", [1, 2], media_sha256=digests, sharpness=[0.5, 0.6], motion=[1.0, 2.0])
    assert rows(tmp_path, "sharpness", "motion") == [(0.5, 1.0), (0.6, 2.0)]
    write_records(tmp_path, "r2", [1], scores=pa.table({"sharpness": [0.3]}), clip="b")
    assert rows(tmp_path, "sharpness", "motion") == [(0.6, 2.0), (0.3, None)]
    write_scores(tmp_path, "r2", [1], media_sha256=["b" * 64], motion=[3.0])
    write_scores(tmp_path, "r3", [1, 2], motion=[7.0, 8.0], label=["x", "y"])  # of any clip of the row
    assert rows(tmp_path, "motion", "label") == [(2.0, "y"), (3.0, "x")]


def test_a_score_of_another_kind_than_the_records_is_joined_all_the_same(tmp_path: Path) -> None:
    write_records(tmp_path, "r1", [1, 2], scores=pa.table({"sharpness": [0.5, 1.5]}))
    write_scores(tmp_path, "r1", [1], sharpness=[2])
    assert rows(tmp_path, "sharpness") == [(2.0,), (1.5,)]
    write_scores(tmp_path, "r2", [1], sharpness=["high"])
    assert rows(tmp_path, "sharpness") == [("high",), ("1.5",)]


def test_a_part_of_too_many_scores_is_refused(tmp_path: Path) -> None:
    write_records(tmp_path, "r1", [1])
    write_scores(tmp_path, "r1", [1], **{f"c{number}": [0.5] for number in range(501)})
    with pytest.raises(JobError, match="scores has 501 columns, more than 500"):
        read(tmp_path)


def test_a_score_that_no_cast_fits_is_refused_by_name() -> None:
    fields = pa.schema([("motion", pa.int64())])
    records = pa.table({"row_id": ["0"], "media_sha256": ["1"], "motion": ["high"]})
    with closing(ScoreIndex(fields)) as index, pytest.raises(JobError, match="'motion' that is not of type"):
        index.joined(records)


def test_no_more_than_some_thousand_rows_are_yielded_at_once(tmp_path: Path) -> None:
    part = write_records(tmp_path, "r1", [0])
    many = pq.read_table(tmp_path / part).take([0] * 10_000)
    row_ids = pa.array(f"{number:032x}" for number in range(10_000))
    many = many.set_column(many.column_names.index("row_id"), "row_id", row_ids)
    pq.write_table(many, tmp_path / "records/part-mine.parquet")
    sizes = [len(table) for table in record_tables(Store(str(tmp_path)), ["seed"])]
    assert sum(sizes) == 10_000 and max(sizes) <= 4096


def test_a_column_that_nothing_has_is_refused_with_the_nearest(tmp_path: Path) -> None:
    write_records(tmp_path, "r1", [1])
    with pytest.raises(JobError, match="no column 'sead'") as caught:
        read(tmp_path, "sead")
    assert "'seed'" in caught.value.fix
