"""An output reads as one table of records, whatever wrote its parts."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framefleet import Store
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.parts import record_tables as module
from framefleet.pipeline.outputs.parts.parts import PartWriter, replace_part
from framefleet.pipeline.outputs.parts.record_tables import (
    ScoreIndex,
    record_schema_of,
    record_tables,
    taken_columns,
)
from framefleet.pipeline.outputs.parts.records import (
    FIRST_FIELDS,
    MAY_COME_LATER,
    RECORD_FIELDS,
    record_schema,
    values_of,
)
from framefleet.pipeline.outputs.parts.seals import epoch_path
from tests.rows import record

NO_COLUMNS = pa.table({})


class Held:
    epoch = 2

    def check(self) -> None: ...


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def commit(
    store: Store,
    run: str,
    numbers: list[int],
    carried: pa.Table = NO_COLUMNS,
    scores: pa.Table = NO_COLUMNS,
    clip: str = "a",
) -> list[str]:
    """Write one part; return its path. clip: which one each row has."""
    schema = record_schema(
        carried.schema, added=pa.schema([field.with_metadata(MAY_COME_LATER) for field in scores.schema])
    )
    writer = PartWriter(store, "records", schema, run=run)
    measured = scores.to_pylist() or [{}] * len(numbers)
    for place, number in enumerate(numbers):
        row = carried.slice(place, 1).combine_chunks().to_batches() if carried.num_columns else [None]
        values = values_of(record(number, worker=run, media_sha256=clip * 64))
        writer.add(row[0], values | measured[place])
    return writer.flush()


def score(store: Store, run: str, **columns: list[Any]) -> None:
    columns["row_id"] = [f"{number:032x}" for number in columns.pop("numbers")]
    table = pa.table(columns)
    writer = PartWriter(store, "scores", table.schema, run=run)
    for row in table.to_pylist():
        writer.add(None, row)
    writer.flush()


def rows(store: Store, *columns: str) -> list[tuple[Any, ...]]:
    tables = list(record_tables(store, columns))
    assert all(table.column_names == list(columns) for table in tables)
    return [tuple(row.values()) for table in tables for row in table.to_pylist()]


def test_an_output_without_records_has_the_columns_of_records_and_no_rows(store: Store) -> None:
    assert record_schema_of(store).names == [*RECORD_FIELDS.names, "marks"]
    assert list(record_tables(store)) == []


def test_records_come_oldest_first_and_of_doubled_ones_the_last_alone(store: Store) -> None:
    commit(store, "000001-20260101T000000-aaaaaaaa", [1, 2, 3])
    commit(store, "000002-20260101T000000-aaaaaaaa", [2, 4, 4])
    assert [(row_id[-1], run[:6]) for row_id, run in rows(store, "row_id", "worker")] == [
        ("1", "000001"),
        ("3", "000001"),
        ("2", "000002"),
        ("4", "000002"),
    ]


def test_ids_that_differ_in_one_digit_are_two_rows(store: Store) -> None:
    commit(store, "r1", [0, 1, 16**15, 16**16, 16**31, 10, 16**31 + 1])
    assert len(rows(store, "row_id")) == 7


def test_late_parts_are_not_read(store: Store) -> None:
    commit(store, "000001-20260101T000000-aaaaaaaa", [1])
    store.write(epoch_path(2), b'{"sealed": {}}')
    assert rows(store, "row_id") == []


def test_every_column_of_every_part_is_there_and_null_where_a_part_lacks_it(store: Store) -> None:
    commit(store, "r1", [1], pa.table({"tag": ["a"]}))
    commit(store, "r2", [2], pa.table({"note": [7]}))
    assert {"tag", "note"} < {*record_schema_of(store).names}
    (table,) = record_tables(store)
    assert table.schema.equals(record_schema_of(store))
    assert table["tag"].to_pylist() == ["a", None]
    assert table["note"].to_pylist() == [None, 7]


def test_parts_of_an_earlier_version_lack_columns_that_are_null_then(store: Store, tmp_path: Path) -> None:
    old = {name: value for name, value in values_of(record(1)).items() if name in FIRST_FIELDS.names}
    (tmp_path / "records").mkdir()
    pq.write_table(pa.Table.from_pylist([old], FIRST_FIELDS), tmp_path / "records/part-r0-000001.parquet")
    assert rows(store, "seed", "path", "idle_s") == [(record(1).seed, None, None)]


def test_a_part_in_place_of_another_has_columns_of_its_own(store: Store) -> None:
    (first,) = commit(store, "r1", [1, 2])
    (second,) = commit(store, "r2", [3, 4], pa.table({"tag": ["a", "b"]}))
    for number, path in enumerate([first, second], start=1):
        gone = [f"{number * 2:032x}"]
        replace_part(store, path, gone, run="r3", number=number, hold=Held())
    assert [tag for (tag,) in rows(store, "tag")] == [None, "a"]


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
def test_types_that_changed_between_runs_become_one_that_holds_both(
    store: Store, one: Any, other: Any, read: list[Any]
) -> None:
    commit(store, "r1", [1], pa.table({"x": one}))
    commit(store, "r2", [2], pa.table({"x": other}))
    assert [x for (x,) in rows(store, "x")] == read


def test_scores_stand_in_their_rows_and_the_newest_counts(store: Store) -> None:
    commit(store, "r1", [1, 2, 3], scores=pa.table({"sharpness": [0.1, 0.2, 0.3]}))
    score(store, "r1", numbers=[2, 1], sharpness=[0.5, None], is_black=[False, True])
    score(store, "r2", numbers=[2, 9], sharpness=[0.6, 1.0], label=["a cat", "b"])
    assert {"is_black", "label"} < {*record_schema_of(store).names}
    assert rows(store, "sharpness", "is_black", "label", "seed") == [
        (0.1, True, None, record(1).seed),
        (0.6, False, "a cat", record(1).seed),
        (0.3, None, None, record(1).seed),
    ]


def test_scores_never_replace_what_a_record_says(store: Store) -> None:
    commit(store, "r1", [1])
    score(store, "r1", numbers=[1], seed=[5], points=[[1.0]])
    assert rows(store, "seed") == [(record(1).seed,)]
    assert "points" not in record_schema_of(store).names


def test_scores_never_replace_what_a_table_carries_though_parts_are_written_anew(store: Store) -> None:
    told = pa.table({"prompt": ["a cat", "a dog"], "note": [1.5, 2.5]})
    (path,) = commit(store, "r1", [1, 2], told, pa.table({"sharpness": [0.1, 0.2]}))
    replace_part(store, path, [f"{2:032x}"], run="r2", number=1, hold=Held())
    score(store, "r1", numbers=[1], prompt=["x"], note=[9.0], sharpness=[0.9])
    assert rows(store, "prompt", "note", "sharpness") == [("a cat", 1.5, 0.9)]
    assert {"prompt", "note", "seed"} < taken_columns(store)
    assert "sharpness" not in taken_columns(store)


def test_a_score_stands_only_beside_the_clip_that_it_is_of(store: Store) -> None:
    commit(store, "r1", [1, 2], scores=pa.table({"sharpness": [0.1, 0.2]}))
    score(store, "r1", numbers=[1, 2], media_sha256=["a" * 64] * 2, sharpness=[0.5, 0.6], motion=[1.0, 2.0])
    assert rows(store, "sharpness", "motion") == [(0.5, 1.0), (0.6, 2.0)]
    commit(store, "r2", [1], scores=pa.table({"sharpness": [0.3]}), clip="b")
    assert rows(store, "sharpness", "motion") == [(0.6, 2.0), (0.3, None)]
    score(store, "r2", numbers=[1], media_sha256=["b" * 64], motion=[3.0])
    score(store, "r3", numbers=[1, 2], motion=[7.0, 8.0], label=["x", "y"])  # of any clip of the row
    assert rows(store, "motion", "label") == [(2.0, "y"), (3.0, "x")]


def test_a_score_of_another_kind_than_the_records_is_joined_all_the_same(store: Store) -> None:
    commit(store, "r1", [1, 2], scores=pa.table({"sharpness": [0.5, 1.5]}))
    score(store, "r1", numbers=[1], sharpness=[2])
    assert rows(store, "sharpness") == [(2.0,), (1.5,)]
    score(store, "r2", numbers=[1], sharpness=["high"])
    assert rows(store, "sharpness") == [("high",), ("1.5",)]


def test_a_part_of_too_many_scores_is_refused(store: Store) -> None:
    commit(store, "r1", [1])
    score(store, "r1", numbers=[1], **{f"c{number}": [0.5] for number in range(501)})
    with pytest.raises(JobError, match="scores has 501 columns, more than 500"):
        list(record_tables(store))


def test_a_score_that_no_cast_fits_is_refused_by_name() -> None:
    fields = pa.schema([("motion", pa.int64())])
    records = pa.table({"row_id": ["0"], "media_sha256": ["1"], "motion": ["high"]})
    with closing(ScoreIndex(fields)) as index, pytest.raises(JobError, match="'motion' that is not of type"):
        index.joined(records)


def test_no_more_than_some_thousand_rows_or_some_megabytes_are_yielded_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 4)
    for run in range(5):
        commit(store, f"r{run}", [3 * run, 3 * run + 1, 3 * run + 2])
    assert [len(table) for table in record_tables(store, ["seed"])] == [4, 2, 4, 2, 3]
    monkeypatch.setattr(module, "_BYTES_AT_ONCE", 1)
    assert [len(table) for table in record_tables(store, ["seed"])] == [3] * 5


def test_a_column_that_nothing_has_is_refused_with_the_nearest(store: Store) -> None:
    commit(store, "r1", [1])
    with pytest.raises(JobError, match="no column 'sead'") as caught:
        list(record_tables(store, ["sead"]))
    assert "'seed'" in caught.value.fix


def test_a_damaged_part_is_named(store: Store, tmp_path: Path) -> None:
    (path,) = commit(store, "r1", [1])
    (tmp_path / path).write_bytes(b"PAR1")
    with pytest.raises(JobError, match=path):
        list(record_tables(store))
