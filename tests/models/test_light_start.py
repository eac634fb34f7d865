"""A command that renders nothing imports no library that renders: another process is asked, once."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from framefleet import plan
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.render.survey import survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.guards.sandbox import Sandbox
from framefleet.pipeline.outputs.layout import RECORDS, clip_path
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import record_schema, values_of
from framefleet.pipeline.rows.tables.index import RowIndex
from tests.commands import TELLING_IMPORTS
from tests.jobs import ROOT, job_values, prompt_rows, write_job, write_table
from tests.rows import RECORD

ROWS = prompt_rows(3)


def job_in(folder: Path) -> Path:
    table = write_table(folder / "t.parquet", ROWS)
    return write_job(folder / "job.yaml", job_values(table, folder / "out"))


@pytest.fixture(scope="module", autouse=True)
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Ask the model's classes once, in a process that remembers nothing; return its words on stderr."""
    folder = tmp_path_factory.mktemp("before")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRAMEFLEET_CACHE", str(folder / "cache"))
        words = command("plan", str(job_in(folder)))
    return words


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job of which every row has a record."""
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


def command(*arguments: str, code: int = 0) -> list[str]:
    """Run one, and return its words on stderr."""
    ended = subprocess.run(
        [sys.executable, "-c", TELLING_IMPORTS, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == code, ended.stderr
    return ended.stderr.splitlines()


def test_plan_imports_none(job: Path) -> None:
    assert command("plan", str(job))[-1] == "imported:"


def test_the_first_plan_imports_none_either_and_shows_no_words_of_theirs(looked_at: list[str]) -> None:
    *said, imported = looked_at
    assert imported == "imported:"
    assert not [line for line in said if "torchao" in line or "Failed to load" in line or "arning" in line]


def test_the_first_plan_starts_one_process_that_imports_them(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "cache"))
    started: list[str] = []
    own = Sandbox.__init__

    def start(box: Sandbox, module: str, **more: Any) -> None:
        started.append(module)
        own(box, module, **more)

    monkeypatch.setattr(Sandbox, "__init__", start)
    plan(str(job))
    assert started.count("framefleet.pipeline.model.library_process") == 1
    started.clear()
    plan(str(job))
    assert "framefleet.pipeline.model.library_process" not in started


def test_a_render_with_nothing_to_do_imports_none(job: Path) -> None:
    said = command("render", str(job))
    assert "nothing to do: every row has a record" in said
    assert said[-1] == "imported:"


def test_a_table_whose_first_rows_are_bad_starts_no_ray(job: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", prompt_rows(2, height=17))
    said = command("render", str(job), "--output", str(tmp_path / "new"), code=2)
    assert "2 of 2 rows cannot be rendered" in " ".join(said)
    assert said[-1] == "imported:"
    assert not (tmp_path / "new").exists()


def test_a_job_imports_the_steps_of_plugins_whose_sections_it_has(job: Path) -> None:
    code = """
import sys
from framefleet.__main__ import main
from framefleet.doors import plugins
try: main()
finally:
    steps = {step.partition(':')[0] for plugin in plugins().values() for step in plugin.clip_steps.values()}
    print('imported:', *sorted(steps & sys.modules.keys()), file=sys.stderr)
"""

    def imported(*arguments: str) -> str:
        options = {"capture_output": True, "text": True, "check": True}
        call = [sys.executable, "-c", code, "plan", str(job), *arguments]
        return subprocess.run(call, env={**os.environ, "PYTHONPATH": str(ROOT)}, **options).stderr

    assert imported().endswith("imported:\n")
    assert imported("--set", "scores=[sharpness]").endswith(
        "imported: framefleet.plugins.scores.clip_scores\n"
    )
