"""Jobs with second models, without Ray: declared by name, claimed, rendered with, found again by replay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from framefleet.cluster.dispatch.lease import Row
from framefleet.cluster.dispatch.order import TableOrder
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.job_json import read_claim
from framefleet.jobs.keep.replay.recorded_row import Given
from framefleet.jobs.keep.replay.replay import replay
from framefleet.jobs.render.claim import check_claim, claim
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import JobError, ModelError
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.recipes.second_model import open_second_models
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from tests.commands import command
from tests.here import render_here
from tests.jobs import job_values, write_job, write_table
from tests.tiny import SMALLEST, build, tiny

IMAGE = {"image_height": 32, "image_width": 32, "image_steps": 2}


def values_of(folder: Path, models: dict[str, Any], cells: list[str | None]) -> dict[str, Any]:
    rows = [{"prompt": "一个球", "seed": seed, "image_model": cell} for seed, cell in enumerate(cells)]
    job = job_values(write_table(folder / "t.parquet", rows), folder / "out", model="opensora")
    defaults = {**SMALLEST["opensora"], **IMAGE, "image_model": "flux"}
    return job | {"recipe": "text_to_image_to_video", "defaults": defaults, "second_models": models}


def resolved(folder: Path, models: dict[str, Any]) -> ResolvedJob:
    return resolve_job(load_job(values_of(folder, models, [None])), Callback())


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


def test_a_lease_has_rows_of_one_second_model(tmp_path: Path) -> None:
    models = {"flux": str(tiny("flux")), "other": str(changed_copy(tmp_path / "other"))}
    job = resolve_job(load_job(values_of(tmp_path, models, ["flux", "other"] * 3)), Callback())
    rows = [row for first, batch in job.table.batches() for row in job.rows.read(first, batch)]
    order = TableOrder()
    for row in rows:
        assert isinstance(row, IdentifiedRow)
        order.add(Row(row_id=row.row_id, shape=row.shape, payload=row.request().arguments["image_model"]))
    leases = [order.take(order.next_shape(None, 9) or "", 9) for _ in range(2)]
    assert [[row.payload["name"] for row in lease] for lease in leases] == [["flux"] * 3, ["other"] * 3]


def test_job_json_says_where_a_model_is_and_no_secret(tmp_path: Path) -> None:
    job = values_of(tmp_path, {"flux": {"path": str(tiny("flux")), "dtype": "bf16"}}, [None])
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
        ("WAN", "defaults.image_model is 'flux', but WanPipeline does not make images"),
        (None, "defaults.image_model is 'flux', but the job declares no second model"),
    ],
)
def test_a_declaration_that_cannot_be_used_is_refused(tmp_path: Path, flux: Any, said: str) -> None:
    def placed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: placed(inner) for key, inner in value.items()}
        return str(tiny(value.lower())) if value in ("FLUX", "WAN") else value

    models = {"flux": placed(flux)} if flux else {}
    ended = command("plan", write_job(tmp_path / "job.yaml", values_of(tmp_path, models, [None])))
    assert ended.exit_code == 2, ended.output
    assert said in " ".join(ended.output.split())


def test_a_plan_compares_the_weights_of_second_models(tmp_path: Path) -> None:
    flux = shutil.copytree(tiny("flux"), tmp_path / "flux")
    file = next((flux / "transformer").glob("*.safetensors"))
    weights = load_file(file)
    weights.popitem()
    save_file(weights, file, metadata={"format": "pt"})
    ended = command(
        "plan", write_job(tmp_path / "job.yaml", values_of(tmp_path, {"flux": str(flux)}, [None]))
    )
    assert ended.exit_code == 2, ended.output
    assert f"second_models.flux: {flux}/transformer has no weight" in " ".join(ended.output.split())


def test_a_name_that_no_row_could_give_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="'a b' cannot be a model's name"):
        resolved(tmp_path, {"a b": str(tiny("flux"))})


def test_a_second_model_has_no_options() -> None:
    with pytest.raises(JobError, match=r"second_models\.flux\.options is set"):
        open_second_models({"flux": {"path": str(tiny("flux")), "options": Options(vae_tiling=True)}})


def test_one_bad_cell_is_one_invalid_row(tmp_path: Path) -> None:
    values = values_of(tmp_path, {"flux": str(tiny("flux"))}, ["flux", "http://127.0.0.1/", None])
    ended = command("plan", write_job(tmp_path / "job.yaml", values | {"on_invalid": "skip"}))
    assert ended.exit_code == 0, ended.output
    assert "left out: row 1: image_model is 'http://127.0.0.1/'" in ended.output


def test_a_pickle_is_loaded_only_where_its_own_declaration_says_so(tmp_path: Path) -> None:
    weights = build("flux", tmp_path / "flux") / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match="is a pickle") as refused:
        resolved(tmp_path, {"flux": str(tmp_path / "flux")})
    assert "`second_models.flux.allow_pickle: true`" in refused.value.fix


def test_a_model_is_declared_as_a_path_or_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("table: t\noutput: o\nmodel: m\nsecond_models: {flux: ./a}\n", encoding="utf-8")
    job = load_job(path, ["second_models.flux.revision=v1", "second_models.other=org/b"])
    assert (job.second_models["flux"].path, job.second_models["flux"].revision) == (str(tmp_path / "a"), "v1")
    assert job.second_models["other"].path == "org/b"
