"""Rows that start from several images, and models with several ControlNets, against plain calls."""

from __future__ import annotations

import ast
import inspect
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import diffusers
import pytest
import torch

import framefleet
from framefleet import Given, JobError, ModelError, Store, replay
from framefleet.pipeline.model.sources.components import components_in
from framefleet.pipeline.model.sources.network_loading import blank_pipeline
from framefleet.pipeline.model.specs.constructor import method
from framefleet.pipeline.model.specs.signature import PLACES, parameters_of, with_several
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.outputs.parts.parts import find_record
from tests.commands import command
from tests.here import render_here
from tests.jobs import job_values, write_table
from tests.long import long_but
from tests.mixed import SIZES, mixed_table
from tests.model_files import model_files
from tests.pictures import picture, write_starts
from tests.tiny import tiny
from tools.conformance.batches import rendered_here
from tools.conformance.plain import Made, plain_calls

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("name", long_but(["sd_controlnets", "wan_vace"], "sd_controlnets"))
def test_rows_of_several_images_share_forwards_and_equal_plain_calls(name: str, tmp_path: Path) -> None:
    changes = {"num_inference_steps": 4, "width": SIZES[name]["width"]}
    rows = [{**row, **changes} for row in mixed_table(name, tmp_path, most=6)]
    clips = rendered_here(name, "fp32", rows, tmp_path)
    for row, made in zip(rows, plain_calls(name, torch.float32, rows, tmp_path), strict=True):
        clip = clips[row["seed"]]
        assert isinstance(clip, Made), clip
        assert clip.frames == made.frames
    assert mean(clip.rows for clip in clips.values() if isinstance(clip, Made)) > 1


def test_a_row_of_several_images_is_recorded_and_replayed(tmp_path: Path) -> None:
    first, second, _ = write_starts(tmp_path, num_frames=1)
    row = {"prompt": "a red ball", "seed": 5, "image": [first, second]}
    row |= {"controlnet_conditioning_scale": [0.5, 1.0], "num_inference_steps": 2}
    values = job_values(write_table(tmp_path / "t.parquet", [row]), tmp_path / "out", model="sd_controlnets")
    output, (row_id,) = render_here(values | {"defaults": {"height": 16, "width": 16}})
    record = find_record(Store(output), row_id)
    told = json.loads(record.arguments)
    assert [Path(image["uri"]).name for image in told["image"]] == [first, second]
    assert told["controlnet_conditioning_scale"] == [0.5, 1.0]
    replayed = replay(output, row_id, Given())
    assert all(then == now for _, then, now in replayed.digests)
    picture(2).save(tmp_path / second)
    with pytest.raises(JobError, match=r"image is .*picture-1\.png', but the file has changed"):
        replay(output, row_id, Given())


def test_all_controlnets_of_a_model_are_hashed_locked_and_counted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny("sd_controlnets"), tmp_path / "model")
    assert {f"{name}/{WEIGHTS}" for name in ("controlnet", "controlnet_1")} <= model_files(folder).keys()
    assert "MultiControlNetModel" in command("model", "info", folder).stdout
    assert command("model", "lock", folder).exit_code == 0
    shutil.copytree(folder / "controlnet", folder / "controlnet_2")  # of which the lock knows nothing
    with pytest.raises(ModelError, match="controlnet_2"):
        framefleet.load_model(folder)
    (folder / "model.lock.json").unlink()
    assert len(framefleet.load_model(folder).pipe.controlnet.nets) == 3
    capfd.readouterr()
    blank = blank_pipeline(folder, model_files(folder), components_in(folder), inspect_model(folder))
    assert "Loading" not in capfd.readouterr().err
    assert [next(net.parameters()).device.type for net in blank.controlnet.nets] == ["meta"] * 3
    config = folder / "controlnet_2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"a": 1}}))
    with pytest.raises(ModelError, match=r"controlnet_2/config.json: .* which diffusers does not read"):
        framefleet.load_model(folder)
    shutil.rmtree(folder / "controlnet_2")
    (folder / "controlnet_1" / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"controlnet_1 cannot be loaded: .* needs weights"):
        framefleet.load_model(folder)


def pipelines() -> Iterator[type]:
    for name in dir(diffusers):
        found = getattr(diffusers, name, None)
        is_one = isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)
        if is_one and name.endswith("Pipeline") and "Modular" not in name:
            yield found


# They make a list of one image, and of a list a batch of clips; or take conditions beside each.
OF_A_BATCH = {
    *("Kandinsky3Img2ImgPipeline", "KandinskyImg2ImgCombinedPipeline", "KandinskyImg2ImgPipeline"),
    *("KandinskyInpaintCombinedPipeline", "KandinskyV22ControlnetImg2ImgPipeline"),
    *("KandinskyV22Img2ImgCombinedPipeline", "KandinskyV22Img2ImgPipeline"),
    *("KandinskyV22InpaintCombinedPipeline", "KandinskyV22PriorEmb2EmbPipeline", "LTXConditionPipeline"),
    *("MotifVideoImage2VideoPipeline", "StableDiffusionDiffEditPipeline"),
    *("StableDiffusionLatentUpscalePipeline", "StableDiffusionUpscalePipeline"),
    "VersatileDiffusionDualGuidedPipeline",
}


def test_every_pipeline_that_makes_a_list_of_one_image_is_known() -> None:
    unknown, seen = set(), 0
    for made in pipelines():
        parameters = with_several(parameters_of(made.__call__), made.__name__, {"index": {}})
        kinds = {parameter.name: parameter.kind for parameter in parameters}
        function = method(made, "__call__")
        for name in set(wrapped_in(function) if function else ()):
            seen += kinds.get(name) in PLACES
            if kinds.get(name) == "image" and made.__name__ not in OF_A_BATCH:
                unknown.add(f"{made.__name__}.{name}")
    assert not unknown
    assert seen > 20


def wrapped_in(function: ast.FunctionDef) -> Iterator[str]:
    """Yield names that `x = [x]` is said of."""
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                lists = (inner.elts for inner in ast.walk(value) if isinstance(inner, ast.List))
                if any(len(parts) == 1 and ast.unparse(parts[0]) == name for parts in lists):
                    yield name


def test_what_is_annotated_as_images_is_read_as_images() -> None:
    """By any name, where it was known by few; but not latents, and what takes weights of its own."""
    unread = set()
    for made in pipelines():
        for parameter in parameters_of(made.__call__):
            given = inspect.signature(made.__call__).parameters[parameter.name].annotation
            if parameter.kind is None and "PIL.Image.Image" in str(given):
                unread.add(parameter.name)
    latents = {"image_latents", "masked_image_latents", "ip_adapter_image_embeds"}
    assert unread == latents | {"ip_adapter_image", "negative_ip_adapter_image"}
