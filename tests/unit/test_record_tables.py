"""An output reads as one table of records, whatever wrote its parts."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import framefleet
from framefleet import JobError, Store
from framefleet.pipeline.outputs.parts.parts import replace_part
from framefleet.pipeline.outputs.parts.record_tables import ScoreIndex, record_tables, taken_columns
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, values_of
from tests.parts import write_records, write_scores
from tests.rows import record

SEED = 2**63 - 1  # of every record


class Held:
    epoch = 2

    def check(self) -> None: ...


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


def test_ids_that_differ_in_one_digit_are_two_rows(tmp_path: Path) -> None:
    write_records(tmp_path, "r1", [0, 1, 16**15, 16**16, 16**31, 10, 16**31 + 1])
    assert len(rows(tmp_path, "row_id")) == 7


def test_late_parts_are_not_read(tmp_path: Path) -> None:
    write_records(tmp_path, "000001-20260101T000000-aaaaaaaa", [1])
    Store(str(tmp_path)).write("drivers/000002.json", b'{"sealed": {}}')
    assert rows(tmp_path, "row_id") == []


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


@pytest.mark.parametrize(
    ("one", "other", "read"),
    [
        ([1], [2.5], [1.0, 2.5]),
        ([1], ["x"], ["1", "x"]),
        ([[1, None]], ["x"], ["[1, null]", "x"]),
        ([{"a": "é"}], [[1]], ['{"a": "é"}', "[1]"]),
        (pa.array(["a"]).dictionary_encode(), ["b"], ["a", "b"]),
        ([None], ["b"], [None, "b"]),
    ],
)
def test_types_that_changed_become_one_type(tmp_path: Path, one: Any, other: Any, read: list[Any]) -> None:
    write_records(tmp_path, "r1", [1], pa.table({"x": one}))
    write_records(tmp_path, "r2", [2], pa.table({"x": other}))
    assert [x for (x,) in rows(tmp_path, "x")] == read


def test_scores_stand_in_their_rows_and_the_newest_counts(tmp_path: Path) -> None:
    write_records(tmp_path, "r1", [1, 2, 3], scores=pa.table({"sharpness": [0.1, 0.2, 0.3]}))
    write_scores(tmp_path, "r1", [2, 1], sharpness=[0.5, None], is_black=[False, True])
    write_scores(tmp_path, "r2", [2, 9], sharpness=[0.6, 1.0], label=["a cat", "b"])
    found = rows(tmp_path, "sharpness", "is_black", "label")
    assert found == [(0.1, True, None), (0.6, False, "a cat"), (0.3, None, None)]


def test_scores_never_replace_what_a_record_says(tmp_path: Path) -> None:
    write_records(tmp_path, "r1", [1])
    write_scores(tmp_path, "r1", [1], seed=[5], points=[[1.0]])
    assert rows(tmp_path, "seed") == [(SEED,)]
    assert "points" not in read(tmp_path).column_names


def test_scores_never_replace_what_a_table_carries_though_parts_are_written_anew(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    carried = pa.table({"prompt": ["a cat", "a dog"], "note": [1.5, 2.5]})
    path = write_records(tmp_path, "r1", [1, 2], carried, pa.table({"sharpness": [0.1, 0.2]}))
    replace_part(store, path, [f"{2:032x}"], run="r2", number=1, hold=Held())
    write_scores(tmp_path, "r1", [1], prompt=["x"], note=[9.0], sharpness=[0.9])
    assert rows(tmp_path, "prompt", "note", "sharpness") == [("a cat", 1.5, 0.9)]
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


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    path = write_records(tmp_path, "r1", [1])
    (tmp_path / path).write_bytes(b"PAR1")
    with pytest.raises(JobError, match=path):
        read(tmp_path)
