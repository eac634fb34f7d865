"""Jobs with second models, without Ray: declared by name, claimed, rendered with, found again by replay."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from framefleet import Given, JobError, ModelError, replay
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.job_json import read_claim
from framefleet.jobs.render.claim import check_claim, claim
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.recipes.second_model import open_second_models
from tests.commands import command
from tests.here import render_here
from tests.jobs import job_values, write_job, write_table
from tests.tiny import SMALLEST, build, tiny

IMAGE = {"image_height": 32, "image_width": 32, "image_steps": 2}


def values_of(folder: Path, models: dict[str, Any], cells: Sequence[str | None] = (None,)) -> dict[str, Any]:
    rows = [{"prompt": "一个球", "seed": seed, "image_model": cell} for seed, cell in enumerate(cells)]
    job = job_values(write_table(folder / "t.parquet", rows), folder / "out", model="opensora")
    defaults = {**SMALLEST["opensora"], **IMAGE, "image_model": "flux"}
    return job | {"recipe": "text_to_image_to_video", "defaults": defaults, "second_models": models}


def resolved(folder: Path, models: dict[str, Any], cells: Sequence[str | None] = (None,)) -> ResolvedJob:
    return resolve_job(load_job(values_of(folder, models, cells)), Callback())


def changed_copy(folder: Path) -> Path:
    copy = shutil.copytree(tiny("flux"), folder)
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + "\n")
    return copy


def test_a_row_can_be_rendered_again_and_from_a_model_that_moved(tmp_path: Path) -> None:
    flux = build("flux", tmp_path / "flux")
    output, row_ids = render_here(values_of(tmp_path, {"flux": str(flux)}, [None, "flux"]))
    assert replay(output, row_ids[0]).is_equal
    moved = flux.rename(tmp_path / "elsewhere")
    assert replay(output, row_ids[0], Given(second_models={"flux": str(moved)})).is_equal
    other = changed_copy(tmp_path / "other")
    with pytest.raises(ModelError, match=r"second model at .*other is not the one that rendered this row"):
        replay(output, row_ids[0], Given(second_models={"flux": str(other)}))


def test_rows_of_other_second_models_have_other_shapes_and_so_share_no_lease(tmp_path: Path) -> None:
    models = {"flux": str(tiny("flux")), "other": str(changed_copy(tmp_path / "other"))}
    job = resolved(tmp_path, models, ["flux", "other", "flux"])
    ((first, batch),) = job.table.batches()
    flux, other, again = (row.shape for row in job.rows.read(first, batch))  # type: ignore[union-attr]
    assert flux == again != other


def test_job_json_says_where_a_model_is_and_no_secret(tmp_path: Path) -> None:
    job = values_of(tmp_path, {"flux": {"path": str(tiny("flux")), "dtype": "bf16"}})
    found = resolve_job(load_job(job | {"storage_options": {"secret": "hidden-word"}}), Callback())
    assert found.second_models["flux"].settings.storage_options == {"secret": "hidden-word"}
    claim(found)
    content = found.store.read("job.json").decode()
    assert "hidden-word" not in content
    flux = json.loads(content)["job"]["second_models"]["flux"]
    assert (flux["path"], flux["dtype"], len(flux["digest"])) == (str(tiny("flux")), "bf16", 64)


def test_models_may_be_added_to_an_output_and_left_out_and_not_changed(tmp_path: Path) -> None:
    first = resolved(tmp_path, {"flux": str(tiny("flux"))})
    claim(first)
    first.store.create("clips/ab/ab.mp4", b"a clip")
    claim(resolved(tmp_path, {"flux": str(tiny("flux")), "wan": str(tiny("wan"))}))
    assert sorted(read_claim(first.store).job.second_models) == ["flux", "wan"]
    assert check_claim(resolved(tmp_path, {"flux": str(tiny("flux"))}))
    with pytest.raises(JobError, match=r"second_models\.flux\.digest: \w{64} there, \w{64} here"):
        claim(resolved(tmp_path, {"flux": str(changed_copy(tmp_path / "other"))}))


@pytest.mark.parametrize(
    ("flux", "said"),
    [
        ("nowhere/at/all", "second_models.flux: model"),
        ({"path": "FLUX", "dtype": {"vea": "bf16"}}, "second_models.flux: dtype names"),
        ({"path": "FLUX", "lock": "no.json"}, "second_models.flux: lock file "),
        ({"pth": "x"}, "did you mean `second_models.flux.path`"),
        ("PICKLED", "`second_models.flux.allow_pickle: true`"),
        ("WAN", "defaults.image_model is 'flux', but WanPipeline does not make images"),
        (None, "defaults.image_model is 'flux', but the job declares no second model"),
    ],
)
def test_a_declaration_that_cannot_be_used_is_refused(tmp_path: Path, flux: Any, said: str) -> None:
    pickled = shutil.copytree(tiny("flux"), tmp_path / "pickled")
    (weights,) = (pickled / "transformer").glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    places = {"FLUX": str(tiny("flux")), "WAN": str(tiny("wan")), "PICKLED": str(pickled)}
    if isinstance(flux, dict):
        flux = {key: places.get(value, value) if key == "path" else value for key, value in flux.items()}
    else:
        flux = places.get(flux, flux)
    assert said in plan_refused(tmp_path, {"flux": flux} if flux else {})


def plan_refused(folder: Path, models: dict[str, Any]) -> str:
    ended = command("plan", write_job(folder / "job.yaml", values_of(folder, models)), exits=2)
    return " ".join(ended.output.split())


def test_a_plan_compares_the_weights_of_second_models(tmp_path: Path) -> None:
    flux = shutil.copytree(tiny("flux"), tmp_path / "flux")
    (file,) = (flux / "transformer").glob("*.safetensors")
    weights = load_file(file)
    weights.popitem()
    save_file(weights, file, metadata={"format": "pt"})
    refusal = plan_refused(tmp_path, {"flux": str(flux)})
    assert f"second_models.flux: {flux}/transformer has no weight" in refusal


def test_a_second_model_has_no_options_and_a_name_that_rows_can_give(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"second_models\.flux\.options is set"):
        open_second_models({"flux": {"path": str(tiny("flux")), "options": Options(vae_tiling=True)}})
    with pytest.raises(JobError, match="'a b' cannot be a model's name"):
        resolved(tmp_path, {"a b": str(tiny("flux"))})
