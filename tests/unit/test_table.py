"""Reading tables: formats, places, order, and what is said when one cannot be read."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.rows.tables.table import Table, folder_of, open_table

ROWS = pa.table({"prompt": ["a cat", "一只猫", "42"], "seed": [1, 2**62, 3], "score": [0.5, 1.5, 2.5]})
JSONL = '{"prompt": "a cat", "seed": 1}\n{"prompt": "a dog", "seed": null, "tags": ["x"]}\n'


def rows(table: Table, batch_rows: int = 1024) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for first, batch in table.batches(batch_rows):
        assert first == len(found)
        assert 0 < batch.num_rows <= batch_rows
        found += batch.to_pylist()
    return found


def test_parquet_comes_back_as_it_was_with_its_number_of_rows(tmp_path: Path) -> None:
    pa.parquet.write_table(ROWS, tmp_path / "t.parquet")
    table = open_table(str(tmp_path / "t.parquet"))
    assert (table.schema, table.num_rows) == (ROWS.schema, 3)
    assert rows(table, batch_rows=2) == ROWS.to_pylist()


def test_csv_infers_types_and_keeps_prompts_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt,seed,score\n42,1,0.5\n43,4611686018427387904,1.5\n")
    table = open_table(str(tmp_path / "t.csv"))
    assert rows(table)[1] == {"prompt": "43", "seed": 2**62, "score": 1.5}
    assert table.num_rows is None


def test_csv_tells_an_empty_cell_from_empty_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('prompt,negative_prompt\na,\nb,""\n"c\nd",null\n')
    assert [row["negative_prompt"] for row in rows(open_table(str(tmp_path / "t.csv")))] == [None, "", "null"]


def test_csv_columns_with_a_meaning_stay_text_for_the_check_of_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt,steps\na,10\nb,many\n")
    table = open_table(str(tmp_path / "t.csv"), arguments={"steps": "int"})
    assert [row["steps"] for row in rows(table)] == ["10", "many"]


def test_a_column_that_is_empty_at_first_takes_text_later(tmp_path: Path) -> None:
    lines = ["prompt,note"] + ["a,"] * 400_000 + ["b,late"]  # over a megabyte, from which types are taken
    (tmp_path / "t.csv").write_text("\n".join(lines))
    last: dict[str, Any] = {}
    for _, batch in open_table(str(tmp_path / "t.csv")).batches():
        last = batch.to_pylist()[-1]
    assert last == {"prompt": "b", "note": "late"}


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.json"])
def test_json_lines_keep_lists_and_nulls(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(JSONL)
    assert rows(open_table(str(tmp_path / name))) == [
        {"prompt": "a cat", "seed": 1, "tags": None},
        {"prompt": "a dog", "seed": None, "tags": ["x"]},
    ]


def test_json_lines_may_turn_to_fractions_late_in_an_argument(tmp_path: Path) -> None:
    lines = ['{"prompt": "a", "scale": 5}'] * 60_000 + ['{"prompt": "b", "scale": 7.5}']
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    table = open_table(str(tmp_path / "t.jsonl"), arguments={"scale": "float"})
    assert sum(float(row["scale"]) for row in rows(table)) == 300_007.5


def test_compressed_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(JSONL.encode()))
    assert len(rows(open_table(str(tmp_path / "t.jsonl.gz")))) == 2


def test_a_folder_is_read_in_sorted_order_without_hidden_files(tmp_path: Path) -> None:
    for name in (
        "part-2.parquet",
        "part-1.parquet",
        "sub/part-0.parquet",
        ".part-9.parquet",
        "_tmp/x.parquet",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pa.parquet.write_table(pa.table({"prompt": [name]}), tmp_path / name)
    (tmp_path / "_SUCCESS").touch()
    found = [row["prompt"] for row in rows(open_table(str(tmp_path)))]
    assert found == ["part-1.parquet", "part-2.parquet", "sub/part-0.parquet"]


def test_a_glob_takes_only_what_it_names(tmp_path: Path) -> None:
    for name in ("a-1.csv", "a-2.csv", "b-1.csv"):
        (tmp_path / name).write_text(f"prompt\n{name}\n")
    assert [row["prompt"] for row in rows(open_table(str(tmp_path / "a-*.csv")))] == ["a-1.csv", "a-2.csv"]


def test_any_fsspec_url_is_read() -> None:
    with fsspec.open("memory://tables/t.parquet", "wb") as file:
        pa.parquet.write_table(ROWS, file)
    assert rows(open_table("memory://tables/t.parquet")) == ROWS.to_pylist()
    assert rows(open_table("memory://tables")) == ROWS.to_pylist()


def test_a_table_is_listed_anew_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten = []
    monkeypatch.setattr(MemoryFileSystem, "invalidate_cache", lambda self, path=None: forgotten.append(path))
    with pytest.raises(TableError, match="does not exist"):
        open_table("memory://later/t.parquet")
    assert forgotten == [None]


def test_a_folder_may_be_called_like_a_pattern(tmp_path: Path) -> None:
    file = tmp_path / "run [v2]" / "t.parquet"
    file.parent.mkdir()
    pa.parquet.write_table(ROWS, file)
    assert rows(open_table(str(file))) == ROWS.to_pylist()
    assert folder_of(str(file)) == folder_of(str(file.parent)) == str(file.parent)
    assert folder_of(str(tmp_path / "run *" / "t.parquet")) == str(tmp_path)


def test_a_store_that_has_answered_before_may_be_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    with fsspec.open("memory://added/t.parquet", "wb") as file:
        pa.parquet.write_table(ROWS, file)
    failures = [ConnectionError("gone"), ConnectionError("gone")]
    lists = MemoryFileSystem.isfile

    def isfile(self: MemoryFileSystem, path: str) -> bool:
        if failures:
            raise failures.pop()
        return lists(self, path)

    monkeypatch.setattr(MemoryFileSystem, "isfile", isfile)
    with pytest.raises(TableError, match="gone"):
        open_table("memory://added/t.parquet")
    failures.append(ConnectionError("gone"))
    assert rows(open_table("memory://added/t.parquet", has_answered=True)) == ROWS.to_pylist()


def test_a_table_can_be_read_twice(tmp_path: Path) -> None:
    pa.parquet.write_table(ROWS, tmp_path / "t.parquet")
    table = open_table(str(tmp_path / "t.parquet"))
    assert rows(table) == rows(table)


def test_a_missing_table_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "prompts.parquet").touch()
    with pytest.raises(TableError, match="does not exist") as caught:
        open_table(str(tmp_path / "prompt.parquet"))
    assert "prompts.parquet" in caught.value.fix


def test_a_missing_folder_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="does not exist"):
        open_table(str(tmp_path / "absent" / "prompts.parquet"))


def test_a_glob_that_meets_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no table files"):
        open_table(str(tmp_path / "*.parquet"))


def test_an_unknown_protocol_is_an_error() -> None:
    with pytest.raises(TableError, match="cannot be read"):
        open_table("nowhere://t.parquet")


@pytest.mark.parametrize("text", ["prompt\n", ""])
def test_an_empty_csv_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TableError):
        rows(open_table(str(tmp_path / "t.csv")))


def test_an_empty_parquet_is_an_error(tmp_path: Path) -> None:
    pa.parquet.write_table(ROWS.slice(0, 0), tmp_path / "t.parquet")
    with pytest.raises(TableError, match="has no rows"):
        open_table(str(tmp_path / "t.parquet"))


def test_files_with_other_columns_are_both_named(tmp_path: Path) -> None:
    pa.parquet.write_table(ROWS, tmp_path / "a.parquet")
    pa.parquet.write_table(ROWS.rename_columns(["prompt", "sed", "score"]), tmp_path / "b.parquet")
    with pytest.raises(TableError, match=r"b\.parquet.*a\.parquet.*'sed' is only in the first"):
        open_table(str(tmp_path))


def test_csv_files_with_other_columns_are_both_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,seed\na,1\n")
    (tmp_path / "b.csv").write_text("prompt,sed\na,1\n")
    with pytest.raises(TableError, match=r"b\.csv.*sed"):
        rows(open_table(str(tmp_path)))


def test_files_of_several_formats_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt\na\n")
    (tmp_path / "b.jsonl").write_text(JSONL)
    with pytest.raises(TableError, match="several formats"):
        open_table(str(tmp_path))


def test_a_broken_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(TableError, match=r"t\.parquet cannot be read"):
        open_table(str(tmp_path / "t.parquet"))


def test_a_bad_csv_line_is_told_by_its_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt,seed\na,1\nb,2,3\n")
    with pytest.raises(TableError, match=r"t\.csv cannot be read: row 1 \(line 3\): Expected 2 columns"):
        rows(open_table(str(tmp_path / "t.csv")))


def test_a_bad_json_line_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"\n')
    with pytest.raises(TableError, match=r"t\.jsonl cannot be read"):
        rows(open_table(str(tmp_path / "t.jsonl")))


def test_a_column_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt,seed,seed\na,1,2\n")
    with pytest.raises(TableError, match="'seed' twice"):
        open_table(str(tmp_path / "t.csv"))


def test_parquet_is_read_from_a_row_on(tmp_path: Path) -> None:
    """Files of 3, 0, 7 and 2 rows, in row groups of 2."""
    seeds = pa.table({"prompt": list("abcdefghijkl"), "seed": range(12)})
    for number, (first, count) in enumerate([(0, 3), (3, 0), (3, 7), (10, 2)]):
        pa.parquet.write_table(seeds.slice(first, count), tmp_path / f"{number}.parquet", row_group_size=2)
    table = open_table(str(tmp_path))
    for start in range(13):
        found = [(first, batch["seed"].to_pylist()) for first, batch in table.batches(2, start=start)]
        assert [seed for _, some in found for seed in some] == [*range(start, 12)]
        assert all(some[0] == first for first, some in found)


def test_lines_come_whole_wherever_one_would_begin(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt\n" + "\n".join("abcde") + "\n")
    table = open_table(str(tmp_path / "t.csv"))
    assert [first for first, _ in table.batches(2, start=3)] == [0, 2, 4]


def test_a_pipe_is_not_waited_for_in_any_place_of_a_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    (tmp_path / "b.jsonl").symlink_to("/dev/zero")
    for place in ("a.csv", "b.jsonl", "*.csv"):
        with pytest.raises(TableError, match=r"it is a (pipe|device), not a file"):
            open_table(str(tmp_path / place))
    (tmp_path / "b.jsonl").unlink()
    with pytest.raises(TableError, match="it is a pipe, not a file"):
        open_table(str(tmp_path))
