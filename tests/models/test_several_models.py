"""Several models in one job: each row is what it is in a job of its model alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

import framefleet
from framefleet.cluster.driver.lock import DriverLock
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.claim import check_claim, claim
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.render.row_parts import Additions, write_rows
from framefleet.jobs.render.survey import survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import JobError, UserError
from framefleet.pipeline.rows.identity import LaneKey
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from tests.commands import command
from tests.driven import render_driven
from tests.jobs import records_of, write_job
from tests.tiny import tiny
from tests.two_models import MODELS, one_model, two_model_rows, two_models


def read(values: Mapping[str, Any]) -> list[IdentifiedRow | InvalidRow]:
    with closing(resolve_job(load_job(values), Callback())) as resolved:
        return [row for first, batch in resolved.table.batches() for row in resolved.rows.read(first, batch)]


def identified(values: Mapping[str, Any]) -> list[IdentifiedRow]:
    rows = read(values)
    assert all(isinstance(row, IdentifiedRow) for row in rows), rows
    return cast(list[IdentifiedRow], rows)


def test_rows_have_the_row_ids_of_their_models_own_jobs(tmp_path: Path) -> None:
    rows = two_model_rows(6)
    together = identified(two_models(tmp_path, rows))
    assert [row.index for row in together] == list(range(6))
    for number, model in enumerate(MODELS):
        alone = identified(one_model(tmp_path, rows, model))
        found = [(row.row_id, row.seed) for row in together[number::2]]
        assert found == [(row.row_id, row.seed) for row in alone]
    assert [row.request().model for row in together] == [*MODELS] * 3


def test_rows_are_refused_with_the_model_that_they_name(tmp_path: Path) -> None:
    rows = two_model_rows(6)
    rows[0]["model"], rows[1]["model"], rows[2]["num_inference_steps"] = "wan2", None, 0
    rows[4]["decode_timestep"] = -5  # what Wan does not take is carried along
    invalid = [row for row in read(two_models(tmp_path, rows)) if isinstance(row, InvalidRow)]
    (first, second, third) = [message for row in invalid for message in row.messages()]
    assert first == ("row 0: model is 'wan2', but the job's `models` has no 'wan2'", "did you mean 'wan'?")
    assert second[0] == "row 1: model is empty, but every row needs one of the job's `models`"
    assert second[1] == "fill it in, or set `defaults: {model: wan}`"
    assert third[0].startswith("row 2: num_inference_steps is 0")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"models": {"wan": "/nowhere/wan", "ltx": "/nowhere/ltx"}}, r"models\.wan: .*/nowhere/wan"),
        ({"defaults": {"model": "flux"}}, r"defaults\.model is 'flux', but `models` has no such name"),
        (
            {"table": None, "sweep": {"prompt": "a", "model": ["wan", "wan2"]}},
            r"sweep\.model is 'wan2', but `models` has no such name\nhint: did you mean 'wan'",
        ),
        ({"defaults": {"num_frame": 9}}, r"models\.wan: defaults\.num_frame: rows have no such argument"),
        ({"columns": {"model": "which"}}, "no column 'which', but the job has the models wan, ltx"),
        ({"columns": {"decode_timesteps": "a"}}, r"columns\.decode_timesteps: there is no argument"),
        ({"media": {"crf": 99}}, "crf"),
    ],
)
def test_what_no_row_can_mend_names_the_model_and_the_fix(
    changes: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=problem) as refused:
        read(two_models(tmp_path, two_model_rows(2)) | changes)
    assert refused.value.fix


def test_a_table_without_the_column_takes_the_default_and_one_model_needs_none(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "model"} for row in two_model_rows(2)]
    values = two_models(tmp_path, rows)
    with pytest.raises(UserError, match="the table has no column 'model', but the job has the models"):
        read(values)
    defaults, only = {**values["defaults"], "model": "ltx"}, {"ltx": str(tiny("ltx"))}
    for changes in ({"defaults": defaults}, {"models": only}):
        assert [row.model for row in identified(values | changes)] == ["ltx", "ltx"]
    swept = two_models(tmp_path, [{"prompt": "a"}, {"prompt": "b"}])
    swept["sweep"] = {"model": ["wan", "ltx"], "guidance_scale": [2.0]}
    assert [row.model for row in identified(swept)] == ["wan", "ltx"] * 2


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An output of two models, rendered by two workers without Ray."""
    folder = tmp_path_factory.mktemp("two")
    values = two_models(folder, two_model_rows(4))
    summary = render_driven(values, num_workers=2)
    assert (summary.done, summary.failed) == (4, 0)
    return folder / "out", values


def test_records_say_the_model_and_keep_what_it_does_not_take(rendered: tuple[Path, dict[str, Any]]) -> None:
    records = sorted(records_of(rendered[0]), key=lambda record: record["row_indices"])
    assert [record["model_name"] for record in records] == [*MODELS] * 2
    assert {record["model_name"]: record["model"] for record in records} == {
        name: str(tiny(name)) for name in MODELS
    }
    assert {record["source_decode_timestep"] for record in records} == {0.05}
    assert [record["decode_timestep"] for record in records] == [None, 0.05] * 2
    assert [record["source_model"] for record in records] == [*MODELS] * 2


def test_frames_are_those_of_a_job_of_one_model(
    rendered: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    digests = {record["row_id"]: record["frames_sha256"] for record in records_of(rendered[0])}
    found = {}
    for model in MODELS:
        render_driven(one_model(tmp_path, two_model_rows(4), model))
        found |= {
            record["row_id"]: record["frames_sha256"] for record in records_of(tmp_path / f"out-{model}")
        }
    assert found == digests


def test_an_output_goes_on_is_verified_and_reported_by_model(rendered: tuple[Path, dict[str, Any]]) -> None:
    output, values = rendered
    assert render_driven(values).done == 0
    with closing(resolve_job(load_job(values), Callback())) as resolved:
        check_claim(resolved)
    assert framefleet.verify(output, files=True).is_well
    verified = framefleet.verify(output, sample=2)
    assert verified.is_well and {row.record.model_name for row in verified.rows} == {*MODELS}
    models = framefleet.report(output, write=False).models
    assert sorted((one.name, one.rows) for one in models) == [("ltx", 2), ("wan", 2)]


def test_rows_that_are_added_go_to_their_models_whose_lanes_are_weighed_as_those_of_the_table(
    tmp_path: Path,
) -> None:
    rows = two_model_rows(2)
    values = two_models(tmp_path, rows[:1])
    with closing(resolve_job(load_job(values), Callback())) as resolved, closing(RowIndex()) as index:
        survey = survey_rows(resolved, index, Callback())
        with DriverLock(resolved.store) as lock:
            claim(resolved)
            write_rows(resolved, index, lock)
            additions = Additions(resolved, survey, index, lock)
            framefleet.add(values, rows[1:], wait_s=0)
            added = additions.take()
        assert added and added.num_new == 1
        assert set(added.lanes) == set(map(LaneKey, MODELS))
        assert all(lane.largest and lane.row_work > 1 for lane in added.lanes.values())
        assert [index.num_pending(lane) for lane in map(LaneKey, MODELS)] == [1, 1]


def test_models_may_be_added_and_none_be_changed(tmp_path: Path) -> None:
    values = two_models(tmp_path, two_model_rows(2))
    models = values["models"]
    fewer = values | {"models": {"wan": models["wan"]}, "overrides": {"model": "wan"}}
    with closing(resolve_job(load_job(fewer), Callback())) as resolved:
        resolved.store.write("records/part-x", b"")
        claim(resolved)
    with closing(resolve_job(load_job(fewer | {"models": models}), Callback())) as resolved:
        claim(resolved)
    claimed = json.loads((tmp_path / "out" / "job.json").read_text())["job"]["models"]
    assert {*claimed} == {*MODELS} and claimed["ltx"]["pipeline"] == "LTXPipeline"
    changed = models | {"wan": {"path": models["wan"], "dtype": "bf16"}}
    with (
        closing(resolve_job(load_job(fewer | {"models": changed}), Callback())) as resolved,
        pytest.raises(JobError, match=r"models\.wan\.numerics: .*auto.* there, .*bf16"),
    ):
        check_claim(resolved)


def test_a_plan_says_what_each_model_does(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job.yaml", two_models(tmp_path, two_model_rows(4)))
    ended = command("plan", job, "--sweep", "seed=1,2")
    assert ended.exit_code == 2 and "the table also has a column" in ended.stderr
    ended = command("plan", job, exits=0)
    for line in ("model wan: .*WanPipe", "model ltx: .*LTXPipe", "wan: 9 x 32 x 32", "argument of ltx"):
        assert re.search(line, ended.stdout), ended.stdout
    plan = framefleet.plan(job)
    assert plan.model in [one.model for one in plan.models.values()]
