"""What a person is told whose table, job file or output is not as it should be."""

from __future__ import annotations

import gzip
import json
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pytest

from framefleet import JobError, Store, StoreError, TableError
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.output import files_of_others, store_of_job
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.rows.sweeps.settings import Sweep
from framefleet.pipeline.rows.sweeps.sweep import open_sweep
from framefleet.pipeline.rows.tables.column_checks import of_others
from framefleet.pipeline.rows.tables.row_plan import argument_columns, plan_rows
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.pipeline.rows.tables.table import open_table
from tests.tiny import tiny

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
    names = ["init_image", "note", "strength", "first_frame", "go_fast", "duration", "caption", "prompt"]
    read = {"prompt": "prompt", "seconds": "seconds"}
    assert dict(of_others(names, read, {"prompt", "num_frames", "seconds"}, "Wan")) == {
        **dict.fromkeys(("init_image", "first_frame"), "Wan takes no image"),
        "strength": "Wan takes no strength",
        "go_fast": "Wan takes no go_fast",
        "duration": "the column 'seconds' is read instead",
    }


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
        ("t.txt", b"prompt\na\n", ".parquet, .pq, .csv"),
        ("t.txt", b"prompt\na\n", "--sweep prompt=@prompts.txt"),
        *((f"t.{end}", b"PK\x03\x04", f"t.{end} is a spreadsheet") for end in ("xlsx", "XLSM", "xls", "ods")),
        *(
            ("t.csv", "prompt\na\n".encode(code), code.upper()[:6])
            for code in ("utf-16", "utf-16-be", "utf-32")
        ),
        ("t.csv", "prompt\na\n".encode("utf-16"), "CSV UTF-8"),
        *((f"t.{end}", b" \n", f"t.{end} is empty") for end in ("csv", "tsv", "jsonl")),
        ("t.parquet", b"", "t.parquet is empty"),
    ],
)
def test_another_kind_of_file_is_named(
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
