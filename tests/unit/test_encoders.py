"""`fleet.encoders`: what a job may ask for, and which worker encodes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from framefleet import plan
from framefleet.cluster.driver.lanes import Lanes
from framefleet.cluster.driver.lock import DriverLock
from framefleet.jobs.job.file import load_job
from framefleet.jobs.plan.command import memory_line
from framefleet.jobs.render.lanes import check_lanes, lanes_of
from framefleet.jobs.render.render import work_of
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.survey import survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import JobError, TableError
from framefleet.pipeline.rows.lane_key import ENCODER_POOL, LaneKey
from framefleet.pipeline.rows.tables.index import RowIndex
from tests.jobs import job_values, prompt_rows, write_table

REFUSED: dict[str, tuple[Mapping[str, Any], str]] = {
    "too many": ({"fleet": {"encoders": 2, "workers": 2}}, "fewer encoders than workers"),
    "too many of max": ({"fleet": {"encoders": 4, "workers": {"max": 4}}}, "fewer encoders than workers"),
    "several models": ({"models": {"a": "wan"}, "model": None}, "the job has several models"),
    "offload": ({"model": {"offload": "group"}}, "weights wait in host memory"),
    "no text": ({"model": "ddpm"}, "no text encoder of its own"),
}


def values_of(folder: Path, model: str = "wan", **more: Any) -> dict[str, Any]:
    values = job_values(write_table(folder / "t.parquet", prompt_rows(6)), folder / "out", model=model)
    values["fleet"] |= {"encoders": 1, "workers": 3}
    return values | more


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_anything_starts(case: str, tmp_path: Path) -> None:
    changed, said = REFUSED[case]
    values = values_of(tmp_path)
    path = values["model"]
    if case == "no text":
        values = values_of(tmp_path, "ddpm")
    elif case == "several models":
        values |= {"models": {"a": path}}
        del values["model"]
    elif case == "offload":
        values["model"] = {"path": path, **changed["model"]}
    else:
        values["fleet"] |= changed["fleet"]
    with pytest.raises(JobError, match=said):
        resolve_job(load_job(values), Callback())


def test_workers_encode_as_many_as_asked_as_long_as_there_is_text_and_then_denoise(tmp_path: Path) -> None:
    with (
        closing(resolve_job(load_job(values_of(tmp_path)), Callback())) as resolved,
        closing(RowIndex()) as index,
        DriverLock(resolved.store) as lock,
    ):
        survey_rows(resolved, index, Callback())
        work = work_of(resolved, index, lock, run="r")
        assert work.setups[LaneKey()].stage == "denoise" and work.setups[ENCODER_POOL].stage == "encode"
        assert work.setups[LaneKey()].keep_embeddings and work.device_name == ""  # of the first worker
        lanes = Lanes(work, lambda row_id, pending: False, lambda added: None)
        assert lanes.next_lane({}) == ENCODER_POOL
        assert lanes.next_lane({ENCODER_POOL: 1}) == LaneKey()
        lanes.fill()
        for worker, model in (("e", ENCODER_POOL), ("d", LaneKey())):
            lanes.join(worker, model, load_s=1.0).dispatcher.join(worker)
        assert lanes.move_from("d", {ENCODER_POOL: 1, LaneKey(): 1}) is None
        assert lanes.move_from("d", {LaneKey(): 1}) == ENCODER_POOL  # the one that encoded is gone
        first = lanes.of("e").dispatcher
        while lease := first.lease("e", 0.0):
            for leased in lease.rows:
                assert lanes.encoded("e", leased.row.row_id, 9.0)
        assert lanes.next_lane({LaneKey(): 1}) == LaneKey()
        assert lanes.move_from("e", {ENCODER_POOL: 1}) == LaneKey()  # nobody denoises
        lanes.fill()
        assert not lanes.finished
        lanes.close()


def test_plan_says_what_is_on_which_gpu(tmp_path: Path) -> None:
    values = values_of(tmp_path)
    apart = plan(values).memory
    values["fleet"] |= {"encoders": 0}
    whole = plan(values).memory
    assert apart.encoders_gb > 0 and whole.encoders_gb == 0
    assert apart.weights_gb + apart.encoders_gb == pytest.approx(whole.weights_gb)
    assert apart.peak_gb < whole.peak_gb
    assert "of text encoders on GPUs of their own" in memory_line(apart)


def test_a_recipe_that_no_row_names_takes_no_lane_where_others_encode() -> None:
    values = {"recipe": "own:one", "model": "m", "output": "o", "sweep": {"seed": [1]}}
    job = load_job(values | {"fleet": {"encoders": 1}})
    recipes = {"own:one": SimpleNamespace(is_batched=True), "own:odd": SimpleNamespace(is_batched=False)}
    resolved = cast(ResolvedJob, SimpleNamespace(job=job, recipes=recipes, models={"": None}))
    with closing(RowIndex()) as index:
        index.add([(0, "0" * 32)], [LaneKey()])
        assert lanes_of(resolved, index) == [LaneKey()]
        with pytest.raises(TableError, match="own:one"):
            check_lanes(resolved, {*index.lanes, LaneKey("", "own:one")})
        with pytest.raises(TableError, match="own:odd may change an encoder"):
            check_lanes(resolved, {LaneKey("", "own:odd")})
