"""On a GPU a known model is loaded in the dtypes of its preset, and its frames are diffusers' own."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanPipeline

from framefleet import Clip, Renderer, Request, load_model
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from tests.tiny import SMALLEST, tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_auto_is_what_the_preset_says() -> None:
    model = load_model(tiny("wan_known"))
    assert model.environment["dtype"] == {"default": "bf16", "vae": "fp32"}
    assert (model.pipe.transformer.dtype, model.pipe.vae.dtype) == (torch.bfloat16, torch.float32)
    assert load_model(tiny("wan")).environment["dtype"] == "bf16"


def test_its_frames_are_those_of_a_plain_call() -> None:
    arguments = {**SMALLEST["wan"], "prompt": "a red ball", "guidance_scale": 5.0}
    request = Request(arguments=arguments, seed=3)
    (clip,) = Renderer(load_model(tiny("wan_known"))).render([request])
    assert isinstance(clip, Clip)
    dtype = {"default": torch.bfloat16, "vae": torch.float32}
    pipe = WanPipeline.from_pretrained(tiny("wan_known"), dtype=dtype, use_safetensors=True).to("cuda")
    output = pipe(**clip.request.arguments, generator=request.generator(), output_type="np")
    assert frames_sha256(to_frames(output)) == clip.frames_sha256
