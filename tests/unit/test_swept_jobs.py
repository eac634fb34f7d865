"""Jobs that sweep: what job.json keeps of them, what a longer sweep renders, what is refused."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from framefleet.cluster.driver.feed import pending_rows
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.claim import claim, claimed_job, job_of
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.survey import Survey, mark_done, survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.rows.tables.index import RowIndex
from tests.committed import committed
from tests.jobs import ROOT, job_values

SWEEP = {"prompt": ["a {color} ball", "a fox"], "color": ["red", "blue"], "seed": "0-2"}


def resolved(folder: Path, **more: Any) -> ResolvedJob:
    values = job_values(folder / "none", folder / "out") | {"table": None, "sweep": SWEEP, **more}
    return resolve_job(load_job(values), Callback())


def surveyed(job: ResolvedJob, index: RowIndex) -> Survey:
    return survey_rows(job, index, Callback())


def test_rows_of_a_sweep_are_fed_as_those_of_a_table(tmp_path: Path) -> None:
    with closing(resolved(tmp_path)) as job, closing(RowIndex()) as index:
        assert surveyed(job, index).num_rows == 12
        assert index.counts().duplicates == 3  # `a fox` has no colour
        rows = list(pending_rows(job.table, job.rows, index))
        assert [row.payload.request.arguments["prompt"] for row in rows[::3]] == [
            "a red ball",
            "a blue ball",
            "a fox",
        ]
        assert rows[0].payload.carried.to_pylist() == [{"color": "red"}]


def test_an_output_tells_the_sweep_that_made_it(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a fox\n")
    more = {"negative_prompt": "no {color} {file}", "file": ["x", "y"]}  # words may be called so
    sweep = {**SWEEP, "prompt": {"file": str(tmp_path / "p.txt")}, **more}
    with closing(resolved(tmp_path, sweep=sweep)) as job:
        claim(job)
    found = claimed_job(str(tmp_path / "out"), [f"sweep.prompt.file={tmp_path / 'p.txt'}"])
    assert (found.sweep, found.table) == (job.job.sweep, None)


def test_a_text_file_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.txt").write_text("a fox\n")
    monkeypatch.chdir(tmp_path)
    with closing(resolved(tmp_path, sweep={"prompt": {"file": "p.txt"}})) as job:
        claim(job)
    with pytest.raises(JobError) as caught:
        claimed_job(str(tmp_path / "out"))
    assert f"--set sweep.prompt.file={tmp_path / 'p.txt'}" in caught.value.fix


SIGNED = "https://b.test/x.png?X-Amz-Signature=s3cr3t"
DRAWN = {"num": 2, "over": {"negative_prompt": [SIGNED, "b"]}}


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"sweep": {**SWEEP, "color": ["red", SIGNED]}}, "sweep.color"),
        ({"sweep": {**SWEEP, "sample": DRAWN}}, "sweep.sample.over"),
        ({"overrides": {"sigmas": [SIGNED]}}, "overrides.sigmas"),
        ({"inputs": {"roots": ["/a", "s3://me:s3cr3t@bucket/x"]}}, "inputs.roots"),
    ],
)
def test_what_is_secret_is_not_written_down_and_has_to_be_said_again(
    section: dict[str, Any], key: str, tmp_path: Path
) -> None:
    with closing(resolved(tmp_path)) as job:
        claim(replace(job, job=load_job(job.job.model_dump() | section)))
    assert "s3cr3t" not in (tmp_path / "out/job.json").read_text()
    problem = f"job.json has {key}.* only in part: it does not store users"
    with pytest.raises(JobError, match=problem) as caught:
        claimed_job(str(tmp_path / "out"))
    said = caught.value.problem.split()[2]
    claimed_job(str(tmp_path / "out"), [f"{said}=[again]"])
    with closing(resolved(tmp_path)) as job:  # which has no secrets any more
        claim(job)
    assert claimed_job(str(tmp_path / "out")).sweep == job.job.sweep


def test_paths_start_where_the_job_began_also_when_it_goes_on_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/a.png").write_bytes(b"a")
    monkeypatch.chdir(tmp_path / "here")
    with closing(resolved(tmp_path, inputs={"roots": ["."]})) as job:
        claim(job)
    monkeypatch.chdir(tmp_path)
    with closing(resolve_job(claimed_job(str(tmp_path / "out")), Callback())) as job:
        assert job.inputs.read("a.png") == b"a"
        assert job.job.inputs.roots == [str(tmp_path / "here")]


def test_what_is_new_in_a_sweep_is_all_that_is_rendered(tmp_path: Path) -> None:
    file = committed(tmp_path, 2, sweep={"guidance_scale": [1, 3]})
    longer = job_of(file, ["sweep.guidance_scale=[2, 3, 1]", "sweep.negative_prompt=[null, blurry]"])
    with closing(resolve_job(longer, Callback())) as job, closing(RowIndex()) as index:
        claim(job)
        surveyed(job, index)
        mark_done(job, index, Callback())
        assert (index.counts().rows, index.counts().done) == (12, 4)
    assert claimed_job(str(tmp_path / "out")).sweep == longer.sweep


@pytest.mark.parametrize("file", ["http://127.0.0.1/p.txt", "/home/you/notes.txt", "s3://yours/notes.txt"])
def test_a_job_json_names_no_text_file_that_records_would_show(file: str, tmp_path: Path) -> None:
    committed(tmp_path, 1)
    path = tmp_path / "out/job.json"
    said = json.loads(path.read_text())
    said["job"]["sweep"] = {"negative_prompt": {"file": file}}
    path.write_text(json.dumps(said))
    with pytest.raises(JobError, match="not used without your consent") as caught:
        claimed_job(str(tmp_path / "out"))
    assert "--set sweep.negative_prompt.file=" in caught.value.fix


@pytest.mark.parametrize(
    ("more", "problem", "fix"),
    [
        ({"num_inference_steps": ["a", "b"]}, "sweep.num_inference_steps has 'a'", "whole number"),
        ({"seed": ["0..63"]}, "sweep.seed has '0..63'", "write 0-63"),
        ({"seed": "0-3,7"}, "sweep.seed has '0-3,7'", "write a list: [0-3, 7]"),
        ({"height": "64-66"}, "sweep.height has 66", "64 or 80"),
        ({"scheduler": ["dimm"]}, "sweep.scheduler has 'dimm'", ""),
        ({"num_videos_per_prompt": [2]}, "no such argument", "repeat the row"),
        ({"prompt": "a {colour} ball"}, "sweep.prompt uses {colour}", ""),
    ],
)
def test_a_value_that_no_row_can_have_is_told_once(
    more: dict[str, Any], problem: str, fix: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError) as caught:
        resolved(tmp_path, sweep={**SWEEP, **more})
    assert problem in caught.value.problem
    assert fix in caught.value.fix


def test_the_example_is_a_sweep_of_24_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    job = load_job(ROOT / "examples/sweep.yaml", [f"output={tmp_path / 'out'}"])
    with closing(resolve_job(job, Callback())) as found, closing(RowIndex()) as index:
        assert str(found.table) == "3 prompts x 4 seeds x 2 guidance scales = 24 rows"
        survey = surveyed(found, index)
        assert (survey.num_invalid, index.counts().pending) == (0, 24)
