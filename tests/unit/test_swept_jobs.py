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
from framefleet.jobs.render.claim import claim
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


def claim_in(folder: Path) -> Any:
    """Return the job of job.json."""
    return json.loads((folder / "out/job.json").read_text())["job"]


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
    claimed = claim_in(tmp_path)
    assert (load_job(job.job.model_dump() | {"sweep": claimed["sweep"]}).sweep, claimed["table"]) == (
        job.job.sweep,
        None,
    )


def test_a_text_file_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.txt").write_text("a fox\n")
    monkeypatch.chdir(tmp_path)
    with closing(resolved(tmp_path, sweep={"prompt": {"file": "p.txt"}})) as job:
        claim(job)
    assert claim_in(tmp_path)["sweep"]["prompt"] == {"file": str(tmp_path / "p.txt")}


SIGNED = "https://b.test/x.png?X-Amz-Signature=s3cr3t"
DRAWN = {"num": 2, "over": {"negative_prompt": [SIGNED, "b"]}}


@pytest.mark.parametrize(
    "section",
    [
        {"sweep": {**SWEEP, "color": ["red", SIGNED]}},
        {"sweep": {**SWEEP, "sample": DRAWN}},
        {"overrides": {"sigmas": [SIGNED]}},
        {"inputs": {"roots": ["/a", "s3://me:s3cr3t@bucket/x"]}},
    ],
    ids=["sweep", "sample", "overrides", "inputs"],
)
def test_what_is_secret_is_not_written_down(section: dict[str, Any], tmp_path: Path) -> None:
    with closing(resolved(tmp_path)) as job:
        claim(replace(job, job=load_job(job.job.model_dump() | section)))
    assert "s3cr3t" not in (tmp_path / "out/job.json").read_text()


def test_what_is_new_in_a_sweep_is_all_that_is_rendered(tmp_path: Path) -> None:
    file = committed(tmp_path, 2, sweep={"guidance_scale": [1, 3]})
    longer = load_job(file, ["sweep.guidance_scale=[2, 3, 1]", "sweep.negative_prompt=[null, blurry]"])
    with closing(resolve_job(longer, Callback())) as job, closing(RowIndex()) as index:
        claim(job)
        surveyed(job, index)
        mark_done(job, index, Callback())
        assert (index.counts().rows, index.counts().done) == (12, 4)
    assert claim_in(tmp_path)["sweep"] == longer.sweep.model_dump()


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
