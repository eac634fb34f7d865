"""docs/output.md explains every column as it is, and its queries answer, on an output that a driver wrote."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from framefleet.api.outputs import DriverLock, Store
from framefleet.jobs.render.row_parts import write_rows
from framefleet.jobs.render.survey import survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.columns import late_field
from framefleet.pipeline.outputs.layout import SCORES
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.record_tables import OF_CLIP
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, INVALID_FIELDS, RECORD_FIELDS
from framefleet.pipeline.outputs.parts.seals import new_run
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.plugins.until.marks import MARKS
from tests import made_up_workers
from tests.driving import hello_of
from tests.jobs import job_values, prompt_rows, records_of, resolved_from, write_table
from tests.made_up_workers import Workers, render_by

PAGE = (Path(__file__).parents[2] / "docs/output.md").read_text("utf-8")
INDENTED = re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE, re.M)
BLOCKS = [re.sub(r"^    ", "", block, flags=re.M).strip() for block in INDENTED]
QUERIES = [query for block in BLOCKS if block.startswith("--") for query in block.split("\n\n")]
WORDS = {
    pa.string(): "text",
    pa.int64(): "integer",
    pa.float64(): "number",
    pa.bool_(): "boolean",
    pa.timestamp("us", "UTC"): "time",
    pa.list_(pa.int64()): "list of integers",
}
TABLE = [{"prompt": "a cat", "seed": 1, "tag": tag} for tag in ("first", "second")] + prompt_rows(4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the output run-7: six rows, of which two are one clip."""
    folder = tmp_path_factory.mktemp("page")
    values = job_values(write_table(folder / "t.parquet", TABLE), folder / "run-7", columns={"seed": "seed"})
    told = {"compute_s": 1.5, "idle_s": 0.5, "num_prompt_tokens": 600, "is_prompt_cut": True}
    with resolved_from(values) as resolved:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(made_up_workers, "RECORD", replace(made_up_workers.RECORD, **told))
            render_by(Workers(resolved.store, hello_of(resolved), 1, {}), resolved)
        with closing(RowIndex()) as index, DriverLock(resolved.store) as lock:
            survey_rows(resolved, index, Callback())
            write_rows(resolved, index, lock)
    schema = pa.schema([("row_id", pa.string()), *OF_CLIP, late_field("quality", pa.float64()), *MARKS])
    for number, accepted in enumerate([(True, True, True, False, None), (None, False, None, None, None)]):
        writer = PartWriter(Store(str(folder / "run-7")), SCORES, schema, run=new_run(number))
        for record, is_accepted in zip(records_of(folder / "run-7"), accepted, strict=True):
            of_clip = {name: record[name] for name in ("row_id", "media_sha256")}
            writer.add(None, of_clip | {"quality": 7.0, "accepted": is_accepted, "surplus": None})
        writer.flush()
    return folder


def test_every_column_is_explained_with_its_type() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \| ([a-z ]+) \|", PAGE, re.M)
    explained = {name: kind for names, kind in rows for name in re.findall(r"`(\w+)`", names)}
    of_plugins = {"marks": "text"}  # of jobs with marks
    assert explained == {field.name: WORDS[field.type] for field in RECORD_FIELDS} | of_plugins


@pytest.mark.parametrize("fields", [FAILURE_FIELDS, INVALID_FIELDS])
def test_columns_of_the_other_folders_are_named_in_order(fields: pa.Schema) -> None:
    assert ", ".join(f"`{name}`" for name in fields.names) in PAGE.replace("\n", " ")


@pytest.mark.parametrize("query", QUERIES)
def test_duckdb_answers(query: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert duckdb.sql(query).fetchall()


def test_the_join_gives_each_row_its_own_columns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (query,) = [query for query in QUERIES if "AS rows" in query]
    found = duckdb.sql(query)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    assert [(row["tag"], row["prompt"]) for row in rows] == [(row["tag"], row["prompt"]) for row in TABLE]
    assert rows[0]["path"] == rows[1]["path"]
    assert all((folder / "run-7" / row["path"]).exists() for row in rows)


@pytest.mark.parametrize("mark", ["# python", "# view"])
def test_python_runs(
    mark: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (code,) = [block for block in BLOCKS if block.startswith(mark)]
    exec(compile(code, "output.md", "exec"), {})
    assert capsys.readouterr().out
