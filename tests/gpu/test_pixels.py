"""On a GPU frames are rounded there and copied beside what comes next, and are those of diffusers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.video_processor import VideoProcessor

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.outputs.frames.frames import to_pictures, to_pixels
from framefleet.pipeline.render.clock import Clock
from framefleet.pipeline.render.recipe_call import Looks, Tails

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def late() -> Any:
    pipe = SimpleNamespace(processor=VideoProcessor())
    Looks(SimpleNamespace(), Tails(int, is_able=False).begin(""), are_late=True)(pipe)
    return pipe.processor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_frames_are_those_of_diffusers(dtype: torch.dtype) -> None:
    clip = torch.randn(1, 3, 13, 64, 96, device="cuda").to(dtype)
    expected = to_pictures(VideoProcessor().postprocess_video(clip, output_type="np"))
    assert np.array_equal(to_pixels(late().postprocess_video(clip, output_type="np")).frames, expected)


def test_the_decoders_memory_may_be_used_again_at_once() -> None:
    clip = torch.randn(1, 3, 81, 480, 832, device="cuda")
    expected = to_pictures(VideoProcessor().postprocess_video(clip, output_type="np"))
    pixels = to_pixels(late().postprocess_video(clip, output_type="np"))
    clip.zero_()
    assert np.array_equal(pixels.frames, expected)


def test_what_cannot_be_kept_is_told_when_the_frames_are_asked_for() -> None:
    pixels = to_pixels(
        late().postprocess_video(torch.full((1, 3, 5, 8, 8), torch.nan, device="cuda"), output_type="np")
    )
    with pytest.raises(RenderError, match="the frames contain NaN"):
        _ = pixels.frames


def test_a_gpu_that_still_works_is_not_idle() -> None:
    clock = Clock("cuda")
    weight = torch.randn(4096, 4096, device="cuda")
    for _ in range(20):
        with clock.spending("decode"):
            for _ in range(20):
                weight @ weight
    torch.cuda.synchronize()
    assert sum(clock.idle_seconds().values()) < 0.5 * clock.elapsed_s
