"""Drafts on a fleet: rendered, chosen, rendered in full; left between the two, and gone on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet.plugins.drafts import drafts
from tests.commands import command
from tests.jobs import job_values, records_of, seconds_of_loads, write_job, write_table

PROMPTS = ("a red ball", "rain on a tin roof")
SCORES = ["sharpness", "is_black", "tests.cluster.test_drafts:fails_of_balls"]


def fails_of_balls(frames: Any, record: Any) -> float:
    if "ball" in record["prompt"]:
        raise ValueError("a ball")
    return float(record["num_inference_steps"])


@pytest.fixture
def job(tmp_path: Path, ray_cluster: str) -> Path:
    rows = [{"prompt": prompt, "tag": f"{prompt} {n}"} for prompt in PROMPTS for n in range(3)]
    for seed, row in enumerate(rows):
        row |= {"seed": None if seed % 3 == 0 else seed}  # derived from what a row is, drafts from theirs
    table = write_table(tmp_path / "t.parquet", rows)
    keep = {"best": 1, "per": "prompt", "by": "sharpness"}
    values = job_values(table, tmp_path / "out", address=ray_cluster, scores=SCORES)
    values["fleet"]["workers"] = 1
    return write_job(tmp_path / "job.yaml", values | {"draft": {"num_inference_steps": 1, "keep": keep}})


def test_drafts_left_before_the_choice_are_kept_and_the_best_rendered_in_full(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = command("plan", job)
    assert "in full, at most 2 of these rows: the best 1 of each prompt by sharpness" in planned.stdout

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(drafts, "choose", interrupted)
        left = command("render", job)
    assert left.exit_code == 130, left.stderr
    out = tmp_path / "out"
    made = {record["row_id"]: record for record in records_of(out / "drafts")}
    assert (len(made), records_of(out)) == (6, [])

    ended = command("render", job, exits=0)
    assert "drafts: nothing to do" in ended.stderr
    assert "in full: 2 of 6 drafts" in ended.stderr
    assert "scores: 1 clip without fails_of_balls, e.g. row" in ended.stderr
    full = records_of(out)
    assert {record["draft_row_id"] for record in full} == best(made.values())
    for record in full:
        draft = made[record["draft_row_id"]]
        assert (record["seed"], record["draft_sharpness"]) == (draft["seed"], draft["sharpness"])
        assert (out / record["draft_path"]).is_file()
        assert record["sharpness"] is not None
        assert json.loads(record["arguments"])["num_inference_steps"] == 2
        assert record["fails_of_balls"] == (None if "ball" in record["arguments"] else 2.0)
    assert "nothing to do" in command("render", job).stderr
    assert len(list((out / "chosen").iterdir())) == 1


def test_workers_of_the_drafts_render_the_rows_in_full(job: Path, tmp_path: Path) -> None:
    assert framefleet.render(job).exit_code == 0
    loads_s = [seconds_of_loads(tmp_path / name) for name in ("out/drafts", "out")]
    assert [len(seconds) for seconds in loads_s] == [1, 1]
    assert loads_s[0][0] > 0 and loads_s[1][0] == 0


def best(records: Any) -> set[str]:
    """The row_id of the sharpest draft of each prompt."""
    groups: dict[str, Any] = {}
    for record in records:
        prompt = json.loads(record["arguments"])["prompt"]
        groups[prompt] = max(groups.get(prompt, record), record, key=lambda one: one["sharpness"])
    return {record["row_id"] for record in groups.values()}
