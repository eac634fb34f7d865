"""Layers with alpha, light beyond one, and whatever else a pipeline returns: in the output, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load

from framefleet import Given, JobError, ModelError, RenderError, Request, Store, replay, replay_script
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.outputs.frames.frames import frames_sha256
from framefleet.pipeline.outputs.layout import extras_path
from framefleet.pipeline.outputs.media.media import decode, decode_floats
from framefleet.pipeline.outputs.parts.parts import find_record
from framefleet.pipeline.outputs.parts.records import Record
from tests.here import render_here
from tests.jobs import job_values, write_table
from tests.pictures import write_starts
from tests.rendered import run_script
from tests.tiny import SMALLEST, UNLIKE, tiny

ROW: dict[str, Any] = {"prompt": "a red ball", "seed": 5}


def values_of(folder: Path, model: str, *, row: dict[str, Any] = ROW, **more: Any) -> dict[str, Any]:
    values = job_values(write_table(folder / "t.parquet", [row]), folder / "out", model=model, **more)
    return values | {"defaults": (SMALLEST | UNLIKE)[model]}


def rendered(folder: Path, model: str, **more: Any) -> tuple[Store, Record]:
    output, (row_id,) = render_here(values_of(folder, model, **more))
    store = Store(output)
    return store, find_record(store, row_id)


def content(record: Record) -> bytes:
    return Path(record.uri.removeprefix("file://")).read_bytes()


def plain_call(model: str, **more: Any) -> Any:
    pipe = diffusers.DiffusionPipeline.from_pretrained(tiny(model))
    generator = torch.Generator("cpu").manual_seed(ROW["seed"])
    return pipe(**UNLIKE[model], prompt=ROW["prompt"], generator=generator, output_type="np", **more)


def test_layers_are_a_zip_of_pngs_with_alpha(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    _, record = rendered(tmp_path, "qwen_layered", row=ROW | {"image": "a.png"})
    layers = plain_call("qwen_layered", image=Image.fromarray(noise)).images[0]
    assert record.uri.endswith(".png.zip")
    assert (record.frames_format, record.num_frames, record.fps) == ("rgba uint8", 2, None)
    assert np.array_equal(decode(content(record)), (layers * 255).round().astype(np.uint8))
    assert record.frames_sha256 == frames_sha256(decode(content(record)))
    with pytest.raises(JobError, match="renders layers"):  # of which one PNG has one
        values = values_of(tmp_path, "qwen_layered", row=ROW | {"image": "a.png"}, media={"format": "png"})
        resolve_job(load_job(values), Callback())


def test_light_beyond_one_is_kept_in_a_format_that_has_it_and_made_again(tmp_path: Path) -> None:
    store, record = rendered(tmp_path, "ltx2_hdr", media={"format": "exr.zip"})
    plain = plain_call("ltx2_hdr").frames[0]
    assert plain.max() > 1
    assert record.frames_format == "rgb float32"
    assert np.array_equal(decode_floats(content(record)), plain)
    assert record.frames_sha256 == frames_sha256(plain)
    assert run_script(replay_script(store.url_of(""), record.row_id)).startswith("the same frames")
    (tmp_path / "mp4").mkdir()
    with pytest.raises(RenderError, match=r"not \[0, 1\]") as caught:
        render_here(values_of(tmp_path / "mp4", "ltx2_hdr"))
    assert "exr.zip" in caught.value.fix


def with_camera(pipe: Any, request: Request) -> dict[str, Any]:
    """Return more than frames, as SANA's world model, LTX-2's keyframes and ERNIE's rewriter do."""
    output = pipe(**request.arguments, generator=request.generator(), output_type="np")
    camera = torch.eye(4).repeat(5, 1, 1)
    return {**output, "c2w": camera, "revised_prompts": ["一个红球"], "positions": [0, 2]}


def test_other_outputs_are_kept_beside_the_clip_and_compared(tmp_path: Path) -> None:
    recipe = f"{__name__}:with_camera"
    store, record = rendered(tmp_path, "wan", recipe=recipe)
    assert record.extra_outputs == '{"positions":[0,2],"revised_prompts":["一个红球"]}'
    path = extras_path(record.row_id)
    assert store.list("extras") == [path]
    assert torch.equal(load(store.read(path))["c2w"], torch.eye(4).repeat(5, 1, 1))
    replayed = replay(store.url_of(""), record.row_id, Given(recipe=recipe))
    names = [name for name, then, now in replayed.digests if then == now]
    assert names == ["frames_sha256", "extra_outputs", "extra_outputs_sha256", "media_sha256"]


@pytest.mark.parametrize("model", ["marigold_depth", "ldm3d"])
def test_a_map_of_a_picture_is_an_array_beside_the_clip(model: str, tmp_path: Path) -> None:
    row = {"image": write_starts(tmp_path, num_frames=1)[0], "seed": 5} if model == "marigold_depth" else ROW
    store, record = rendered(tmp_path, model, row=row)
    kept = load(store.read(record.extra_outputs_path or ""))
    if model == "ldm3d":
        assert kept["depth"].shape == (1, 16, 16, 1)
    else:
        shown = (kept["prediction"].numpy().repeat(3, axis=-1) * 255).round()
        assert np.array_equal(decode(content(record)), shown.astype(np.uint8))
    replayed = replay(store.url_of(""), record.row_id, Given())
    assert all(then == now for _, then, now in replayed.digests)


def test_a_model_that_makes_neither_frames_nor_sound_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("sd"), tmp_path / "model")
    index = folder / "model_index.json"
    changed = json.loads(index.read_text()) | {"_class_name": "StableCascadePriorPipeline"}
    index.write_text(json.dumps(changed))
    with pytest.raises(ModelError, match="neither frames nor sound, but image_embeddings"):
        inspect_model(folder)
