"""Reading tables: formats, places, order, and what is said when one cannot be read, and how."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from framefleet import JobError, Store, StoreError, TableError
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.output import files_of_others, store_of_job
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.rows.sweeps.settings import Sweep
from framefleet.pipeline.rows.sweeps.sweep import open_sweep
from framefleet.pipeline.rows.tables.column_checks import of_others
from framefleet.pipeline.rows.tables.csv_text import MAX_ROW
from framefleet.pipeline.rows.tables.row_plan import argument_columns, plan_rows
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.pipeline.rows.tables.table import Table, folder_of, open_table
from tests.failing_store import Failing, failing
from tests.tiny import tiny

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


JOB = {"table": "t.csv", "output": "out", "model": "m"}


@pytest.fixture(scope="module")
def wan() -> PipelineSpec:
    return inspect_model(tiny("wan"))


def planned(path: Path, spec: PipelineSpec) -> list[str | None]:
    """Return of every row of a table its prompt, or None where it is refused."""
    table = open_table(str(path), arguments=argument_columns(spec, {}))
    plan = plan_rows(table.schema, spec)
    rows = [row for first, batch in table.batches() for row in plan.rows(first, batch)]
    return [None if isinstance(row, InvalidRow) else row.request.arguments["prompt"] for row in rows]


def refused(path: Path, spec: PipelineSpec) -> TableError:
    with pytest.raises(TableError) as caught:
        planned(path, spec)
    return caught.value


def test_a_missing_column_lists_those_found(tmp_path: Path, wan: PipelineSpec) -> None:
    (tmp_path / "t.csv").write_text("caption,seed\na fox,1\n")
    error = refused(tmp_path / "t.csv", wan)
    assert error.problem.endswith("their columns are 'caption', 'seed'")
    assert "`columns: {prompt: caption}`" in error.fix


@pytest.mark.parametrize(
    ("name", "content", "problem", "fix"),
    [
        ("t.csv", b"prompt\na\n", "is a table", "write it as --table "),
        (
            "t.xlsx",
            b"PK\x03\x04\xff",
            "is a spreadsheet or a zip, and a job file belongs",
            "the sheet as CSV",
        ),
        ("job.yaml", b"model:\n\tpath: x\n", "line 2: a tab", "spaces"),
        ("job.json", json.dumps(JOB | {"budget": {"money": 5.0}}).encode(), "budget", "given with a price"),
    ],
)
def test_what_is_no_job_file_is_told(
    name: str, content: bytes, problem: str, fix: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(JobError, match=problem) as caught:
        load_job(tmp_path / name)
    assert fix in caught.value.fix


def test_a_table_that_is_not_there_is_answered_with_similar_names_alone(
    tmp_path: Path, wan: PipelineSpec
) -> None:
    for name in ("t8.csv", "t9.csv"):
        (tmp_path / name).write_text("prompt\na\n")
    assert refused(tmp_path / "promts.csv", wan).fix.startswith("check the path")
    (tmp_path / "prompts.csv").write_text("prompt\na\n")
    assert refused(tmp_path / "promts.csv", wan).fix == "did you mean 'prompts.csv'?"


INSIDE, FILE = "are inside each other", r"cannot be a folder: .*t\.csv is a file"


@pytest.mark.parametrize(
    ("table", "output", "problem"),
    [
        ("data", "data", INSIDE),
        ("data", ".", INSIDE),
        ("data", "data/out", INSIDE),
        ("data/*.csv", "data", INSIDE),
        ("data/*.csv", "data/out", None),
        ("data/**/*.csv", "data/out", INSIDE),
        ("data/**", "data/deep/out", INSIDE),
        ("data/*/*.csv", "data/out", None),  # an output has no tables beside its folders
        ("data/*/*/*.csv", "data/out", INSIDE),
        ("data/day-*/*/*.csv", "data/out", None),
        ("data/*/*/*.csv", "out", None),
        ("data", "data-out", None),
        ("data/t.csv", "data", None),  # as the demo has it
        ("data/t.csv", "data/out", None),
        ("data/t.csv", "data/t.csv", FILE),
        ("data/t.csv", "data/t.csv/out", FILE),
        ("data/t.csv", "/proc/out", "stores no files"),
    ],
)
def test_an_output_that_holds_the_table_lies_in_it_or_is_no_folder_is_refused(
    table: str, output: str, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/t.csv").write_text("prompt\na fox\n")
    job = load_job(JOB | {"table": table, "output": output})
    with pytest.raises(JobError, match=problem) if problem else nullcontext():
        store_of_job(job)


@pytest.mark.parametrize(
    ("column", "argument"),
    [
        ("steps", "num_inference_steps"),
        ("cfg", "guidance_scale"),
        ("Frames", "num_frames"),
        ("sampler", "scheduler"),
        ("Negative Prompt", "negative_prompt"),
        ("random_seed", "seed"),
        ("W", "width"),
        ("hieght", "height"),
        ("image_size", "size"),
        ("aspectRatio", "size"),
        ("durationSeconds", "seconds"),
        ("num_samples", "n"),
        ("sample_shift", "scheduler"),
        ("output_format", "media.format"),
        ("frame_rate", "fps"),
    ],
)
def test_what_others_call_an_argument_is_told_when_it_is_carried(
    column: str, argument: str, wan: PipelineSpec
) -> None:
    schema = pa.schema([("prompt", pa.string()), (column, pa.string())])
    assert plan_rows(schema, wan).lookalikes == ((column, argument),)
    with pytest.raises(JobError, match=rf"defaults\.{column}") as refused:
        plan_rows(schema, wan, defaults={column: 1})
    assert argument.partition(".")[0] in refused.value.fix


def test_arguments_of_other_models_and_second_names_are_told_when_they_are_carried() -> None:
    names = ["init_image", "strength", "first_frame", "go_fast", "sigmas", "duration", "caption", "prompt"]
    read = {"prompt": "prompt", "seconds": "seconds"}
    assert dict(of_others(names, read, {"prompt", "num_frames", "seconds"}, "Wan")) == {
        **dict.fromkeys(("init_image", "first_frame"), "Wan takes no image"),
        "strength": "Wan takes no strength",
        "go_fast": "Wan takes no go_fast",
        "sigmas": "Wan takes no sigmas",
        "duration": "the column 'seconds' is read instead",
    }


TOO_LONG = b"x" * 3 * MAX_ROW + b"\n"
CUT = slice(-9)
NUMBERS = b"\n".join(b"%d" % number for number in range(10**5))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n", "git lfs pull"),
        ("t.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull"),
        ("t.csv", b"\n<!DOCTYPE html><html>", "download the file itself"),
        ("t.jsonl", b"<html>", "download the file itself"),
        ("t.csv", gzip.compress(b"prompt\na\n", mtime=0), "rename it to t.csv.gz"),
        ("t.jsonl", b"PAR1" + bytes(9), "to end in .parquet"),
        ("t.parquet", b"ARROW1" + bytes(9), "convert it to Parquet"),
        ("t.parquet", b"prompt,seed\na,1\n", "rename it to end in its real format"),
        ("t.csv", b"PK\x03\x04" + bytes(9), "save the sheet as CSV"),
        ("t.xlsx", b"PK\x03\x04" + bytes(9), "save the sheet as CSV UTF-8"),
        ("t.parquet", b"PARE" + bytes(40) + b"PARE", "without encryption"),
        ("t.jsonl.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull"),
        ("t.csv.xz", b"<!doctype html>", "download the file itself"),
        ("t.csv.bz2", gzip.compress(b"prompt\na\n", mtime=0), "rename it to t.csv.gz"),
        ("t.csv.gz", b"prompt\na\n", "rename it"),
        ("t.csv.gz", b"", "add rows"),
        ("t.txt", b"prompt\na\n", "t.txt does not end like a table"),
        ("t.txt", b"prompt\na\n", "--sweep prompt=@prompts.txt"),
        *((f"t.{end}", b"PK\x03\x04", f"t.{end} is a spreadsheet") for end in ("xlsx", "XLSM", "xls", "ods")),
        *(
            ("t.csv", "prompt\na\n".encode(code), code.upper()[:6])
            for code in ("utf-16", "utf-16-be", "utf-32")
        ),
        ("t.csv", "prompt\na\n".encode("utf-16"), "CSV UTF-8"),
        *((f"t.{end}", b" \n", f"t.{end} is empty") for end in ("csv", "tsv", "jsonl")),
        ("t.parquet", b"", "t.parquet is empty"),
        ("t.csv", b"prompt\n" + TOO_LONG, "a row is longer than 1,048,576 bytes"),
        ("t.tsv", b"prompt\n" + b"a\n" * MAX_ROW + TOO_LONG + b"a\n", "a row is longer than 1,048,576 bytes"),
        ("t.csv.gz", gzip.compress(b"prompt\na\n", mtime=0)[CUT], "it may be cut short"),
        ("t.csv.gz", gzip.compress(b"prompt\n" + NUMBERS, mtime=0)[CUT], "it may be cut short"),
        ("t.jsonl.gz", gzip.compress(b'{"prompt": "a"}\n' * 10**5, mtime=0)[CUT], "it may be cut short"),
        ("t.tsv.bz2", bz2.compress(b"prompt\n" + NUMBERS)[CUT], "it may be cut short"),
        ("t.csv.xz", lzma.compress(b"prompt\n" + NUMBERS)[CUT], "it may be cut short"),
        ("t.csv.xz", lzma.compress(b"prompt\n" + NUMBERS)[:99] + bytes(99), "it may be cut short"),
    ],
)
def test_another_kind_of_file_a_row_that_is_too_long_and_a_cut_off_one_are_named(
    name: str, content: bytes, said: str, tmp_path: Path, wan: PipelineSpec
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in str(refused(tmp_path / name, wan))


def test_a_row_is_told_with_its_file_and_one_of_a_sweep_with_the_line_that_it_is_made_of(
    tmp_path: Path,
) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("prompt\na fox\na cat\n")
    table = open_table(str(tmp_path))
    assert table.places([0, 3]) == {0: "a.csv line 2", 3: "b.csv line 3"}
    assert table.places([]) == {}
    file, sweep = open_table(str(tmp_path / "a.csv")), Sweep.model_validate({"seed": "0-3"})
    swept = open_sweep(sweep, file, kinds={"seed": "int"}, others=(), columns={}, storage_options={})
    assert swept.places([0, 3, 4]) == {0: "line 2", 3: "line 2", 4: "line 3"}


def test_a_folder_with_files_of_others_is_known_from_an_output(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="could not create") as caught:
        Store("/proc/nothing").create("job.json", b"{}")
    assert caught.value.fix == "check the path: no folder can be made there", "it is no bucket"
    store = Store(str(tmp_path))
    for own in ("chosen", "prompts.csv", "job.yaml"):  # what a job has there before it begins
        (tmp_path / own).touch()
    assert files_of_others(store, "jobs/prompts.csv") is None
    (tmp_path / "letter.txt").write_text("mine")
    assert files_of_others(store, "prompts.csv") == "letter.txt"
    store.write("job.json", b"{}")
    assert files_of_others(store) is None
