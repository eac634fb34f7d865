"""The recipe `text_to_image_to_video`: a plain script's image and clip, from one generator."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from diffusers import FluxPipeline

from framefleet import Clip, Failure, Renderer, Request, TableError, load_model
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.recipes.recipe import spec_for
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.plugins.ports.opensora.pipeline_opensora import OpenSoraPipeline
from framefleet.plugins.recipes.conditioning import image_size
from tests.tiny import SMALLEST, tiny
from tests.unaudited import unaudited

RECIPE = BUILT_IN["text_to_image_to_video"]
IMAGE = {"image_height": 32, "image_width": 32, "image_steps": 2}


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
