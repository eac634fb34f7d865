"""The recipe `text_to_image_to_video`: a plain script's image and clip, from one generator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FluxPipeline

from framefleet import Clip, Renderer, Request, load_model
from framefleet.pipeline.errors import TableError
from framefleet.pipeline.fused.forwards import Batching
from framefleet.pipeline.models.opensora.pipeline_opensora import OpenSoraPipeline
from framefleet.pipeline.outputs.frames import frames_sha256, to_frames
from framefleet.pipeline.recipes.first_image import image_size, text_to_image_to_video
from tests.tiny import SMALLEST, tiny

IMAGE = {"image_height": 32, "image_width": 32, "image_steps": 2}


def request(seed: int = 0, **arguments: Any) -> Request:
    given = {**SMALLEST["opensora"], "prompt": "a ball", "image_model": str(tiny("flux")), **IMAGE}
    return Request(arguments=given | arguments, seed=seed, recipe="text_to_image_to_video")


def test_rows_have_the_frames_of_a_plain_script() -> None:
    requests = [request(seed, guidance_scale=2.0 + seed) for seed in range(4)]
    clips = list(Renderer(load_model(tiny("opensora"), dtype="fp32"), Batching(min_gain=0)).render(requests))
    found = {c.request.seed: c.frames_sha256 for c in clips if isinstance(c, Clip)}
    flux, video = (
        FluxPipeline.from_pretrained(tiny("flux")),
        OpenSoraPipeline.from_pretrained(tiny("opensora")),
    )
    for pipe in (flux, video):
        pipe.set_progress_bar_config(disable=True)
    for seed in range(4):
        generator = torch.Generator("cpu").manual_seed(seed)
        image = flux("a ball", height=32, width=32, num_inference_steps=2, generator=generator).images[0]
        arguments = {**SMALLEST["opensora"], "prompt": "a ball", "guidance_scale": 2.0 + seed}
        output = video(image=image, **arguments, generator=generator, output_type="np")
        assert frames_sha256(to_frames(output)) == found[seed]


def test_the_image_models_files_are_part_of_the_row() -> None:
    (clip,) = Renderer(load_model(tiny("opensora"))).render([request()])
    assert isinstance(clip, Clip)
    named = clip.request.arguments["image_model"]
    assert named["model"] == str(tiny("flux")) and len(named["digest"]) == 64
    other = dict(clip.request.arguments) | {"image_model": named | {"digest": "0" * 64}}
    pipe = load_model(tiny("opensora")).pipe
    with pytest.raises(Exception, match="is not the one that it was when the row was checked"):
        text_to_image_to_video(pipe, Request(arguments=other), image_model=other["image_model"])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"image_model": None}, "text_to_image_to_video needs it|every row needs an image_model|no column"),
        ({"image_model": str(tiny("wan"))}, "WanPipeline does not make images from text alone"),
        ({"image_model": "/nowhere"}, "nowhere"),
        ({"image": "a.png"}, "image"),
    ],
)
def test_a_row_without_a_usable_image_model_is_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(TableError, match=problem):
        list(Renderer(load_model(tiny("opensora"))).render([request(**arguments)]))


def test_small_clips_begin_with_a_larger_image_of_their_shape() -> None:
    assert image_size(192, 336, multiple=16) == (576, 1008)
    assert image_size(768, 1360, multiple=16) == (768, 1360)
    assert image_size(720, 1280, multiple=32) == (704, 1280)
