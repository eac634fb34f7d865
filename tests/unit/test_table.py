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

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.rows.tables.table import Table, folder_of, open_table
from tests.failing_store import Failing, failing

ROWS = pa.table({"prompt": ["a cat", "一只猫", "42"], "seed": [1, 2**62, 3], "score": [0.5, 1.5, 2.5]})
JSONL = '{"prompt": "a cat", "seed": 1}\n{"prompt": "a dog", "seed": null, "tags": ["x"]}\n'
LONG = "a" * 5000  # types are taken from the first megabyte


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
    for _ in range(2):  # as often as it is asked for
        assert rows(table, batch_rows=2) == ROWS.to_pylist()


def test_csv_infers_types_and_keeps_prompts_and_arguments_as_text(tmp_path: Path) -> None:
    lines = ["prompt,seed,score,note,steps", "42,1,0.5,,10", '"a\nb",4611686018427387904,1.5,"",many']
    (tmp_path / "t.csv").write_text("\n".join(lines))
    table = open_table(str(tmp_path / "t.csv"), arguments={"steps": "int"})
    assert [list(row.values()) for row in rows(table)] == [
        ["42", 1, 0.5, None, "10"],
        ["a\nb", 2**62, 1.5, "", "many"],
    ]
    assert table.num_rows is None


def test_a_column_may_turn_to_texts_or_an_argument_to_fractions_late(tmp_path: Path) -> None:
    lines = ["prompt,note"] + [f"{LONG},"] * 300 + ["b,late"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    assert rows(open_table(str(tmp_path / "t.csv")))[-1] == {"prompt": "b", "note": "late"}
    lines = [f'{{"prompt": "{LONG}", "scale": 5}}'] * 300 + ['{"prompt": "b", "scale": 7.5}']
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    table = open_table(str(tmp_path / "t.jsonl"), arguments={"scale": "float"})
    assert sum(float(row["scale"]) for row in rows(table)) == 1507.5


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.json", "t.jsonl.gz"])
def test_json_lines_keep_lists_and_nulls(tmp_path: Path, name: str) -> None:
    content = JSONL.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert rows(open_table(str(tmp_path / name))) == [
        {"prompt": "a cat", "seed": 1, "tags": None},
        {"prompt": "a dog", "seed": None, "tags": ["x"]},
    ]


def test_a_folder_is_read_in_sorted_order_without_hidden_files_and_a_glob_takes_only_what_it_names(
    tmp_path: Path,
) -> None:
    for name in ("part-2", "part-1", "sub/part-0", ".part-9", "_tmp/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pa.parquet.write_table(pa.table({"prompt": [name]}), tmp_path / f"{name}.parquet")
    (tmp_path / "_SUCCESS").touch()
    for place, names in (("", ["part-1", "part-2", "sub/part-0"]), ("part-*.parquet", ["part-1", "part-2"])):
        assert [row["prompt"] for row in rows(open_table(str(tmp_path / place)))] == names


def test_any_fsspec_url_is_read() -> None:
    with fsspec.open("memory://tables/t.parquet", "wb") as file:
        pa.parquet.write_table(ROWS, file)
    assert rows(open_table("memory://tables/t.parquet")) == ROWS.to_pylist()
    assert rows(open_table("memory://tables")) == ROWS.to_pylist()


def test_a_table_is_listed_anew_each_time() -> None:
    before = Failing.num_refreshed
    with pytest.raises(TableError, match="does not exist"):
        open_table("failing://later/t.parquet")
    assert Failing.num_refreshed == before + 1


def test_a_folder_may_be_called_like_a_pattern(tmp_path: Path) -> None:
    file = tmp_path / "run [v2]" / "t.parquet"
    file.parent.mkdir()
    pa.parquet.write_table(ROWS, file)
    assert rows(open_table(str(file))) == ROWS.to_pylist()
    assert folder_of(str(file)) == folder_of(str(file.parent)) == str(file.parent)
    assert folder_of(str(tmp_path / "run *" / "t.parquet")) == str(tmp_path)


def test_a_store_that_has_answered_before_may_be_out_of_reach() -> None:
    with fsspec.open("failing://added/t.parquet", "wb") as file:
        pa.parquet.write_table(ROWS, file)
    with failing([ConnectionError("gone")]), pytest.raises(TableError, match="gone"):
        open_table("failing://added/t.parquet")
    with failing([ConnectionError("gone")]):
        assert rows(open_table("failing://added/t.parquet", has_answered=True)) == ROWS.to_pylist()


SED = ROWS.rename_columns(["prompt", "sed", "score"])


@pytest.mark.parametrize(
    ("files", "place", "problem"),
    [
        ({}, "absent/prompts.parquet", "does not exist"),
        ({}, "*.parquet", "no table files"),
        ({}, "nowhere://t.parquet", "cannot be read"),
        ({"t.csv": "prompt\n"}, "t.csv", "has no rows"),
        ({"t.csv": ""}, "t.csv", "is empty"),
        ({"t.parquet": ROWS.slice(0, 0)}, "t.parquet", "has no rows"),
        ({"a.parquet": ROWS, "b.parquet": SED}, "", r"b\.parquet.*a\.parquet.*'sed' is only in the first"),
        ({"a.csv": "prompt,seed\na,1\n", "b.csv": "prompt,sed\na,1\n"}, "", r"b\.csv.*sed"),
        ({"a.csv": "prompt\na\n", "b.jsonl": JSONL}, "", "several formats"),
        ({"t.parquet": "PAR1 cut short"}, "t.parquet", r"t\.parquet cannot be read"),
        (
            {"t.csv": 'prompt,seed\na,1\n\n"b\nc",2\nd,3,4\n'},
            *("t.csv", r"t\.csv cannot be read: row 2 \(line 6\): Expected 2 columns, got 3"),
        ),
        ({"t.jsonl": '{"prompt": "a"}\n{"prompt": "b"\n'}, "t.jsonl", r"t\.jsonl cannot be read"),
        ({"t.csv": "prompt,seed,seed\na,1,2\n"}, "t.csv", "'seed' twice"),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, files: dict[str, str | pa.Table], place: str, problem: str
) -> None:
    for name, content in files.items():
        if isinstance(content, str):
            (tmp_path / name).write_text(content)
        else:
            pa.parquet.write_table(content, tmp_path / name)
    with pytest.raises(TableError, match=problem):
        rows(open_table(place if "://" in place else str(tmp_path / place)))


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
