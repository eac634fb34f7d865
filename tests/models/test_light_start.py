"""A command that renders nothing imports no library that renders: another process is asked, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.render.survey import survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.layout import RECORDS, clip_path
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import record_schema, values_of
from framefleet.pipeline.rows.tables.index import RowIndex
from tests.commands import HEAVY
from tests.jobs import ROOT, job_values, prompt_rows, write_job, write_table
from tests.rows import RECORD

ROWS = prompt_rows(3)
# Modules of processes that import the libraries, to inspect a model and to count tokens.
ASKED = ("framefleet.pipeline.model.library_process", "framefleet.plugins.forecast.cut_prompts")
# Runs the commands of its argument one after the other. After each it says its exit code, how often it asked
# another process, and which libraries and steps of plugins are imported so far.
SEVERAL = f"""
import json, sys
from framefleet.__main__ import main
from framefleet.pipeline.plugin import plugins

asked = []
def listen(event, values):
    if event == "subprocess.Popen":
        asked.append(not set({ASKED!r}).isdisjoint(values[1]))
sys.addaudithook(listen)
for sys.argv[1:] in json.loads(sys.argv[1]):
    asked.clear()
    try: code = main()
    except SystemExit as ended: code = ended.code
    doors = [
        door
        for plugin in plugins().values()
        for door in (plugin.file_steps, plugin.columns_of_sections, plugin.late_columns_of_sections)
    ]
    steps = {{place.partition(":")[0] for door in doors for place in door.values()}}
    print("ended:", code or 0, sum(asked), *sorted(({HEAVY!r} | steps) & sys.modules.keys()), file=sys.stderr)
"""


def ended(*commands: list[str | Path]) -> tuple[list[str], str]:
    """Run commands in one new process; return what it says after each, and all that is printed."""
    words = json.dumps([[*map(str, command)] for command in commands])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", SEVERAL, words], env=environment, capture_output=True, text=True, check=True
    )
    ends = [line for line in run.stderr.splitlines() if line.startswith("ended: ")]
    return [line.removeprefix("ended: ") for line in ends], run.stderr + run.stdout


def job_in(folder: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> Path:
    table = write_table(folder / "t.parquet", rows)
    return write_job(folder / "job.yaml", job_values(table, folder / "out"))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """Plan twice where nothing is remembered, and a long prompt; return the folder that remembers, and
    what was said."""
    folder = tmp_path_factory.mktemp("before")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRAMEFLEET_CACHE", str(folder / "cache"))
        (folder / "long").mkdir()
        long = job_in(folder / "long", [{**ROWS[0], "prompt": "a red ball " * 9}])
        job = job_in(folder)
        return folder / "cache", *ended(["plan", job], ["plan", job], ["plan", long])


@pytest.fixture
def job(first: tuple[Path, list[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of which every row has a record."""
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(first[0]))
    job = job_in(tmp_path)
    with closing(resolve_job(load_job(job), Callback())) as resolved, closing(RowIndex()) as index:
        survey_rows(resolved, index, Callback())
        claim(resolved)
        writer = PartWriter(resolved.store, RECORDS, record_schema(pa.schema([])), run="r1")
        nothing = pa.RecordBatch.from_struct_array(pa.array([{}], pa.struct([])))
        for _, row_id in index.pending_in(0, len(ROWS)):
            path = clip_path(row_id, ".mp4")
            resolved.store.write(path, b"a clip")
            writer.add(nothing, values_of(RECORD) | {"row_id": row_id, "path": path, "bytes": 6})
        writer.flush()
    return job


def test_plan_imports_none_and_asks_one_process_once(first: tuple[Path, list[str], str]) -> None:
    _, ends, words = first
    assert ends == ["0 1", "0 0", "0 1"]
    assert "1 row with more tokens than the model reads" in " ".join(words.split())
    assert not [word for word in ("torchao", "Failed to load", "arning") if word in words]


def test_a_render_of_no_row_and_a_plan_with_scores_import_their_own_steps_alone(
    job: Path, tmp_path: Path
) -> None:
    table = write_table(tmp_path / "bad.parquet", prompt_rows(2, height=17))
    ends, words = ended(
        ["render", job],
        ["render", job, "--set", f"table={table}", "--output", tmp_path / "new"],
        ["plan", job, "--set", "scores=[sharpness]"],
    )
    assert ends == ["0 0", "2 0", "0 0 framefleet.plugins.scores.clip_scores"]
    assert "nothing to do: every row has a record" in words
    assert "2 of 2 rows cannot be rendered" in " ".join(words.split())
    assert not (tmp_path / "new").exists()
