"""Several models in one job, as lanes or as second models of recipes: each row is what it is alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file, save_file

import framefleet
from framefleet import Clip, Failure, Given, ModelError, Renderer, Request, TableError, load_model, replay
from framefleet.cluster.driver.lock import DriverLock
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.job_json import read_claim
from framefleet.jobs.render.claim import check_claim, claim
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.row_parts import Additions, write_rows
from framefleet.jobs.render.survey import survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import JobError, UserError
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.recipes.recipe import spec_for
from framefleet.pipeline.recipes.second_model import open_second_models
from framefleet.pipeline.rows.identity import LaneKey
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from framefleet.plugins.ports.opensora.pipeline_opensora import OpenSoraPipeline
from framefleet.plugins.recipes.conditioning import image_size
from tests.commands import command
from tests.driven import render_driven
from tests.here import render_here
from tests.jobs import job_values, records_of, write_job, write_table
from tests.tiny import SMALLEST, build, tiny
from tests.two_models import MODELS, one_model, two_model_rows, two_models
from tests.unaudited import unaudited


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
        ("INCOMPLETE", "incomplete/transformer has no weight"),
        ("WAN", "defaults.image_model is 'flux', but WanPipeline does not make images"),
        (None, "defaults.image_model is 'flux', but the job declares no second model"),
    ],
)
def test_a_declaration_that_cannot_be_used_is_refused(tmp_path: Path, flux: Any, said: str) -> None:
    pickled = shutil.copytree(tiny("flux"), tmp_path / "pickled")
    (file,) = (pickled / "transformer").glob("*.safetensors")
    incomplete = shutil.copytree(pickled, tmp_path / "incomplete")
    weights = load_file(file)
    weights.popitem()
    save_file(weights, incomplete / "transformer" / file.name, metadata={"format": "pt"})
    file.rename(file.with_suffix(".bin"))
    places = {"FLUX": str(tiny("flux")), "WAN": str(tiny("wan")), "PICKLED": str(pickled)}
    places["INCOMPLETE"] = str(incomplete)
    if isinstance(flux, dict):
        flux = {key: places.get(value, value) if key == "path" else value for key, value in flux.items()}
    else:
        flux = places.get(flux, flux)
    values = values_of(tmp_path, {"flux": flux} if flux else {})
    ended = command("plan", write_job(tmp_path / "job.yaml", values), exits=2)
    assert said in " ".join(ended.output.split())


def test_a_second_model_has_no_options_and_a_name_that_rows_can_give(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"second_models\.flux\.options is set"):
        open_second_models({"flux": {"path": str(tiny("flux")), "options": Options(vae_tiling=True)}})
    with pytest.raises(JobError, match="'a b' cannot be a model's name"):
        resolved(tmp_path, {"a b": str(tiny("flux"))})


RECIPE = BUILT_IN["text_to_image_to_video"]


def renderer(**models: Any) -> Renderer:
    model = load_model(tiny("opensora"), dtype="fp32")
    return unaudited(model, second_models={"flux": tiny("flux"), **models})


def request(seed: int = 0, **arguments: Any) -> Request:
    given = {**SMALLEST["opensora"], "prompt": "a ball", "image_model": "flux", **IMAGE}
    return Request(arguments=given | arguments, seed=seed, recipe="text_to_image_to_video")


def test_rows_have_the_frames_of_a_plain_script() -> None:
    requests = [request(seed, guidance_scale=2.0 + seed) for seed in range(4)]
    clips = list(renderer().render(requests))
    found = {c.request.seed: c.frames_sha256 for c in clips if isinstance(c, Clip)}
    flux = FluxPipeline.from_pretrained(tiny("flux"))
    video = OpenSoraPipeline.from_pretrained(tiny("opensora"))
    for seed in range(4):
        generator = torch.Generator("cpu").manual_seed(seed)
        image = flux("a ball", height=32, width=32, num_inference_steps=2, generator=generator).images[0]
        arguments = {**SMALLEST["opensora"], "prompt": "a ball", "guidance_scale": 2.0 + seed}
        output = video(image=image, **arguments, generator=generator, output_type="np")
        assert frames_sha256(to_frames(output)) == found[seed]


def test_a_row_is_identified_by_the_models_files_and_not_by_its_name(tmp_path: Path) -> None:
    copy = shutil.copytree(tiny("flux"), tmp_path / "copy")
    config = copy / "scheduler" / "scheduler_config.json"
    same = {"other": shutil.copytree(copy, tmp_path / "same")}
    config.write_text(config.read_text() + "\n")
    found = renderer(**same, changed=copy, half={"path": tiny("flux"), "dtype": "bf16"})
    rows = [request(image_model=name) for name in ("flux", "other", "changed", "half")]
    clips = [clip for clip in found.render(rows) if isinstance(clip, Clip)]
    by_name = {clip.request.arguments["image_model"]["name"]: clip for clip in clips}
    assert len(by_name["flux"].request.arguments["image_model"]["digest"]) == 64
    assert by_name["flux"].row_id == by_name["other"].row_id
    assert by_name["flux"].request.seed == by_name["other"].request.seed
    assert len({clip.row_id for clip in clips}) == 3
    assert by_name["half"].request.arguments["image_model"]["dtype"] == "bf16"
    found = renderer(flux=copy)
    config.write_text(config.read_text() + "\n")  # after the renderer read it
    (failure,) = found.render([request()])
    assert isinstance(failure, Failure) and "is corrupted or a different file" in str(failure.error)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"image_model": None}, "needs it|needs an image_model|has no 'image_model'"),
        ({"image_model": "wan"}, "WanPipeline does not make images from text alone"),
        ({"image_model": "fluxx"}, "declares no second model 'fluxx'.*\n.*did you mean 'flux'"),
        ({"image": "a.png"}, "image"),
    ],
)
def test_a_row_without_a_usable_image_model_is_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(TableError, match=problem):
        list(renderer(wan=tiny("wan")).render([request(**arguments)]))


@pytest.mark.parametrize("cell", ["/etc", "simplecache::http://127.0.0.1:1/flux", "org/name", "", "\0"])
def test_a_cell_is_no_place_of_a_model(cell: str) -> None:
    plan = plan_rows(
        pa.schema([("image_model", pa.string()), ("prompt", pa.string())]),
        spec_for(RECIPE, inspect_model(tiny("opensora"))),
        recipe=RECIPE,
        defaults=SMALLEST["opensora"],
    )
    for row in plan.rows(0, pa.RecordBatch.from_pydict({"image_model": [cell], "prompt": ["a"]})):
        assert isinstance(row, InvalidRow)
        ((problem, fix),) = row.messages()
        assert "declares no second model" in problem and "second_models: {flux: ...}" in fix


def test_small_clips_begin_with_a_larger_image_of_their_shape() -> None:
    assert image_size(192, 336, multiple=16) == (576, 1008)
    assert image_size(768, 1360, multiple=16) == (768, 1360)
    assert image_size(720, 1280, multiple=32) == (704, 1280)
