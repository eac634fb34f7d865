"""What a person is told whose table, job file or output is not as it should be."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from framefleet import Store
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.output import files_of_others, store_of_job
from framefleet.jobs.render.survey import Survey
from framefleet.pipeline.errors import JobError, StoreError, TableError
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.rows.sweeps.settings import Sweep
from framefleet.pipeline.rows.sweeps.sweep import open_sweep
from framefleet.pipeline.rows.tables.column_checks import of_others
from framefleet.pipeline.rows.tables.row_plan import argument_columns, plan_rows
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.pipeline.rows.tables.table import open_table
from tests.tiny import tiny


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


def test_an_unknown_ending_lists_the_known_ones(tmp_path: Path, wan: PipelineSpec) -> None:
    (tmp_path / "prompts.txt").write_text("prompt\na fox\n")
    error = refused(tmp_path / "prompts.txt", wan)
    assert "prompts.txt does not end like a table" in error.problem
    assert ".parquet, .pq, .csv" in error.fix
    assert "--sweep prompt=@prompts.txt" in error.fix


@pytest.mark.parametrize("ending", ["xlsx", "XLSM", "xls", "ods"])
def test_a_spreadsheet_is_called_one(ending: str, tmp_path: Path, wan: PipelineSpec) -> None:
    (tmp_path / f"p.{ending}").write_bytes(b"PK\x03\x04")
    error = refused(tmp_path / f"p.{ending}", wan)
    assert error.problem.endswith(f"p.{ending} is a spreadsheet, which is not read")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_another_encoding_is_named_with_how_to_save(encoding: str, tmp_path: Path, wan: PipelineSpec) -> None:
    (tmp_path / "t.csv").write_text("prompt,seed\na fox,1\n", encoding=encoding)
    error = refused(tmp_path / "t.csv", wan)
    assert encoding.upper()[:6] in error.problem
    assert "CSV UTF-8" in error.fix


@pytest.mark.parametrize(
    "text",
    ["prompt;seed\na fox, red;1\n", '\ufeffprompt,seed\n"a fox, red",1\n', "prompt\tseed\na fox, red\t1\n"],
)
def test_what_spreadsheets_call_csv_is_read(text: str, tmp_path: Path, wan: PipelineSpec) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert planned(tmp_path / "t.csv", wan) == ["a fox, red"]


def test_a_missing_column_lists_those_found(tmp_path: Path, wan: PipelineSpec) -> None:
    (tmp_path / "t.csv").write_text("caption,seed\na fox,1\n")
    error = refused(tmp_path / "t.csv", wan)
    assert error.problem.endswith("their columns are 'caption', 'seed'")
    assert "`columns: {prompt: caption}`" in error.fix


def test_one_odd_cell_in_json_lines_is_one_refused_row(tmp_path: Path, wan: PipelineSpec) -> None:
    lines = [
        '{"prompt": "a", "seed": 1}',
        '{"prompt": {"x": 1}}',
        '{"prompt": 7}',
        '{"prompt": "b", "seed": "x"}',
    ]
    (tmp_path / "t.jsonl").write_text("\n".join([*lines, '{"prompt": "c", "guidance_scale": 5}']))
    assert planned(tmp_path / "t.jsonl", wan) == ["a", None, None, None, "c"]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
def test_an_empty_file_says_so(name: str, tmp_path: Path, wan: PipelineSpec) -> None:
    (tmp_path / name).write_text("" if name == "t.parquet" else " \n")
    assert refused(tmp_path / name, wan).problem.endswith(f"{name} is empty")


def test_a_table_in_the_place_of_a_job_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="is a table") as caught:
        load_job(tmp_path / "prompts.csv")
    assert caught.value.fix == f"write it as --table {tmp_path / 'prompts.csv'}"


def test_a_spreadsheet_in_the_place_of_a_job_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04\xff")
    with pytest.raises(JobError, match="is a spreadsheet or a zip, and a job file belongs here") as caught:
        load_job(tmp_path / "t.xlsx")
    assert "save the sheet as CSV" in caught.value.fix


def test_a_table_that_is_not_there_is_answered_with_similar_names_alone(
    tmp_path: Path, wan: PipelineSpec
) -> None:
    for name in ("t8.csv", "t9.csv"):
        (tmp_path / name).write_text("prompt\na\n")
    assert refused(tmp_path / "promts.csv", wan).fix.startswith("check the path")
    (tmp_path / "prompts.csv").write_text("prompt\na\n")
    assert refused(tmp_path / "promts.csv", wan).fix == "did you mean 'prompts.csv'?"


def test_a_tab_in_a_job_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("model:\n\tpath: x\n")
    with pytest.raises(JobError, match="line 2: a tab"):
        load_job(tmp_path / "job.yaml")


@pytest.mark.parametrize(
    ("table", "output", "is_refused"),
    [
        ("data", "data", True),
        ("data", ".", True),
        ("data", "data/out", True),
        ("data/*.csv", "data", True),
        ("data/*.csv", "data/out", False),
        ("data", "data-out", False),
        ("data/t.csv", "data", False),  # as the demo has it
        ("data/t.csv", "data/out", False),
        ("s3://bucket/data", "s3://bucket/data/out", True),
        ("s3://bucket/data/t.csv", "s3://bucket/out", False),
    ],
)
def test_an_output_that_holds_the_table_or_lies_in_it_is_refused(
    table: str, output: str, is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/t.csv").write_text("prompt\na fox\n")
    monkeypatch.setattr(
        "framefleet.pipeline.outputs.stores.store.Store.list", lambda store, folder: []
    )  # no S3 here
    job = load_job({"table": table, "output": output, "model": "m"})
    if is_refused:
        with pytest.raises(JobError, match="are inside each other"):
            store_of_job(job)
    else:
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
    ],
)
def test_what_others_call_an_argument_is_told_when_it_is_carried(
    column: str, argument: str, wan: PipelineSpec
) -> None:
    schema = pa.schema([("prompt", pa.string()), (column, pa.string())])
    assert plan_rows(schema, wan).lookalikes == ((column, argument),)


def test_a_column_that_other_pipelines_take_is_reported(wan: PipelineSpec) -> None:
    assert of_others(["image", "note", "strength", "prompt"], [wan]) == ["image", "strength"]


@pytest.mark.parametrize(
    ("name", "content", "fix"),
    [
        ("t.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n", "git lfs pull"),
        ("t.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull"),
        ("t.csv", b"\n<!DOCTYPE html><html>", "download the file itself"),
        ("t.jsonl", b"<html>", "download the file itself"),
        ("t.csv", gzip.compress(b"prompt\na\n", mtime=0), "rename it to t.csv.gz"),
        ("t.jsonl", b"PAR1" + bytes(9), "the ending .parquet"),
        ("t.parquet", b"ARROW1" + bytes(9), "convert it to Parquet"),
        ("t.parquet", b"prompt,seed\na,1\n", "give it the ending of what it is"),
        ("t.csv", b"PK\x03\x04" + bytes(9), "save the sheet as CSV"),
        ("t.xlsx", b"PK\x03\x04" + bytes(9), "save the sheet as CSV UTF-8"),
        ("t.parquet", b"PARE" + bytes(40) + b"PARE", "without encryption"),
        ("t.jsonl.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull"),
        ("t.csv.xz", b"<!doctype html>", "download the file itself"),
        ("t.csv.bz2", gzip.compress(b"prompt\na\n", mtime=0), "rename it to t.csv.gz"),
        ("t.csv.gz", b"prompt\na\n", "give it its own ending"),
        ("t.csv.gz", b"", "add rows"),
    ],
)
def test_another_kind_of_file_is_named(
    name: str, content: bytes, fix: str, tmp_path: Path, wan: PipelineSpec
) -> None:
    (tmp_path / name).write_bytes(content)
    assert fix in refused(tmp_path / name, wan).fix


TEXTS = {
    "t.csv": '\ufeffprompt;seed\r\n\r\na;1\r\n"b\r\nc";x\r\n\r\nd;y\r\n',
    "t.jsonl": '\n{"prompt": "a"}\n\n{"prompt": "b", "seed": "x"}\n\n{"prompt": "c", "seed": "y"}\n',
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_refused_row_is_told_with_its_line_in_the_file(
    name: str, tmp_path: Path, wan: PipelineSpec
) -> None:
    (tmp_path / name).write_text(TEXTS[name], newline="")
    table = open_table(str(tmp_path / name), arguments=argument_columns(wan, {}))
    plan = plan_rows(table.schema, wan)
    survey = Survey()
    for first, batch in table.batches():
        survey.add([row for row in plan.rows(first, batch) if isinstance(row, InvalidRow)])
    survey.find_places(table)
    told = [line.partition(":")[0] for line in survey.invalid_lines()]
    assert told == ["row 1 (line 4)", f"row 2 (line {7 if name == 't.csv' else 6})"]


def test_of_several_files_the_row_is_told_with_its_file(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("prompt\na fox\na cat\n")
    table = open_table(str(tmp_path))
    assert table.places([0, 3]) == {0: "a.csv line 2", 3: "b.csv line 3"}
    assert table.places([]) == {}


def test_a_row_of_a_sweep_is_told_with_the_line_that_it_is_made_of(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt\na fox\na cat\n")
    sweep = Sweep.model_validate({"seed": "0-3"})
    swept = open_sweep(
        sweep,
        open_table(str(tmp_path / "t.csv")),
        kinds={"seed": "int"},
        others=(),
        columns={},
        storage_options={},
    )
    assert swept.places([0, 3, 4]) == {0: "line 2", 3: "line 2", 4: "line 3"}


def test_a_row_that_cannot_be_read_has_the_same_number_and_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('prompt,seed\na,1\n\n"b\nc",2\nd,3,4\n')
    with pytest.raises(TableError) as caught:
        list(open_table(str(tmp_path / "t.csv")).batches())
    assert "t.csv cannot be read: row 2 (line 6): Expected 2 columns, got 3" in caught.value.problem


@pytest.mark.parametrize("output", ["t.csv", "t.csv/out"])
def test_an_output_where_a_file_is_says_which(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("prompt\na fox\n")
    with pytest.raises(JobError, match=r"cannot be a folder: .*t\.csv is a file"):
        store_of_job(load_job({"table": "t.csv", "output": output, "model": "m"}))


def test_an_output_below_proc_is_refused_before_anything_starts() -> None:
    with pytest.raises(JobError, match="stores no files"):
        store_of_job(load_job({"table": "t.csv", "output": "/proc/out", "model": "m"}))


def test_a_folder_with_files_of_others_is_known_from_an_output(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for own in ("chosen", "prompts.csv", "job.yaml"):  # what a job has there before it begins
        (tmp_path / own).touch()
    assert files_of_others(store, "jobs/prompts.csv") is None
    (tmp_path / "letter.txt").write_text("mine")
    assert files_of_others(store, "prompts.csv") == "letter.txt"
    store.write("job.json", b"{}")
    assert files_of_others(store) is None


def test_a_local_output_that_cannot_be_made_is_no_bucket() -> None:
    with pytest.raises(StoreError, match="could not create") as caught:
        Store("/proc/nothing").create("job.json", b"{}")
    assert caught.value.fix == "check the path: no folder can be made there"


def test_what_money_is_counted_by_is_asked_for() -> None:
    values = {"table": "t.csv", "output": "out", "model": "m", "budget": {"money": 5.0}}
    with pytest.raises(JobError, match="budget") as caught:
        load_job(values)
    assert caught.value.fix == "it must be given with a price, which is that of one GPU for one hour"
