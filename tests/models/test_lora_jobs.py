"""Jobs with LoRAs, without Ray: what their outputs remember, and what is refused before weights are read."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.job_json import read_claim
from framefleet.jobs.job.model import open_models
from framefleet.jobs.render.claim import check_claim, claim
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import JobError, ModelError
from framefleet.pipeline.rows.tables.rows import InvalidRow
from tests.jobs import job_values, prompt_rows, write_table
from tests.loras import save_lora
from tests.tiny import tiny
from tests.two_models import two_model_rows, two_models


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("loras")
    return {name: str(save_lora("wan", name, folder / name)) for name in ("style", "detail")}


def values_of(folder: Path, loras: dict[str, Any], cell: str | None) -> dict[str, Any]:
    table = write_table(folder / "t.parquet", [row | {"lora": cell} for row in prompt_rows(2)])
    return job_values(table, folder / "out") | {"loras": loras}


def resolved(folder: Path, loras: dict[str, Any]) -> ResolvedJob:
    return resolve_job(load_job(values_of(folder, loras, None)), Callback())


def test_loras_may_be_added_to_an_output_and_left_out_and_not_changed(
    tmp_path: Path, files: dict[str, str]
) -> None:
    first = resolved(tmp_path, {"style": files["style"]})
    claim(first)
    style = json.loads(first.store.read("job.json"))["job"]["loras"]["style"]
    assert Path(style["path"], style["file"]) == Path(files["style"])  # as other machines find it
    assert len(style["sha256"]) == 64
    first.store.create("clips/ab/ab.mp4", b"a clip")
    claim(resolved(tmp_path, {"detail": files["detail"]}))
    assert sorted(read_claim(first.store).job.loras) == ["detail", "style"]
    assert check_claim(resolved(tmp_path, {}))
    with pytest.raises(JobError, match=r"loras\.style\.sha256: \w{64} there, \w{64} here"):
        claim(resolved(tmp_path, {"style": files["detail"]}))


def test_a_lora_that_no_row_uses_changes_no_row(tmp_path: Path, files: dict[str, str]) -> None:
    def row_ids(loras: dict[str, Any]) -> list[str]:
        job = resolved(tmp_path, loras)
        rows = [row for first, batch in job.table.batches() for row in job.first.plan.rows(first, batch)]
        return [job.first.identity(row.request) for row in rows]  # type: ignore[union-attr]

    assert row_ids({}) == row_ids(files)


def test_loras_that_the_model_has_no_layers_for_are_refused(tmp_path: Path, files: dict[str, str]) -> None:
    for model, lora, message in (
        ("svd", files["style"], "StableVideoDiffusionPipeline takes no LoRAs"),
        (
            "wan",
            {"path": files["style"], "component": "transformer_2"},
            r"it has no layer for transformer_2\.blocks\.0",
        ),
    ):
        values = values_of(tmp_path, {"style": lora}, None) | {"model": str(tiny(model))}
        with pytest.raises(ModelError, match=message):
            resolve_job(load_job(values), Callback())


def test_a_row_whose_model_the_lora_does_not_fit_says_why(tmp_path: Path, files: dict[str, str]) -> None:
    rows = [row | {"lora": "style"} for row in two_model_rows(2)]
    with closing(resolve_job(load_job(two_models(tmp_path, rows, loras=files)), Callback())) as job:
        assert {*job.models["wan"].settings.loras} == {*files} and not job.models["ltx"].settings.loras
        of_wan, of_ltx = (row for first, batch in job.table.batches() for row in job.rows.read(first, batch))
    assert not isinstance(of_wan, InvalidRow) and isinstance(of_ltx, InvalidRow)
    ((problem, fix),) = of_ltx.messages()
    assert problem.startswith("row 1: lora is 'style', but loras.style: /")
    assert "does not fit LTXPipeline: " in problem and fix


def test_ulysses_is_refused_together_with_loras_that_fit_its_model(
    tmp_path: Path, files: dict[str, str]
) -> None:
    placed = {"device": "cpu", "placement": {"type": "ulysses", "devices": 2}}
    values = values_of(tmp_path, {"style": files["style"]}, None)
    message = "placement: ulysses is set, and model.loras is too"
    with pytest.raises(ModelError, match=message):
        open_models(load_job(values | {"model": {"path": str(tiny("wan")), **placed}}))
    values = two_models(tmp_path, two_model_rows(2), loras=files)
    for name, problem in (
        ("wan", message),
        ("ltx", "no context parallel plan"),
    ):  # its LoRAs are not the reason
        models = {**values["models"], name: {"path": str(tiny(name)), **placed}}
        with pytest.raises(ModelError, match=problem):
            open_models(load_job(values | {"models": models}))
