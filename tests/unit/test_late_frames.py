"""Postprocessing that is put off gives diffusers' pixels, and diffusers' array to whoever looks."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor, VaeImageProcessorLDM3D
from diffusers.video_processor import VideoProcessor

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.outputs.frames.frames import frames_sha256, is_late, to_pictures, to_pixels
from framefleet.pipeline.render.recipe_call import Looks, Tails

TAIL = Tails(int, is_able=False).begin("")


def late(kind: type[Any] = VideoProcessor, **settings: Any) -> Any:
    """A processor as a row's pipeline has it."""
    pipe = SimpleNamespace(processor=kind(**settings))
    Looks(SimpleNamespace(), TAIL, are_late=True)(pipe)
    return pipe.processor


def assert_equal_pixels(values: torch.Tensor) -> None:
    """values: what a decoder returned, in any order."""
    values = torch.cat([values, values[: -len(values) % 21]])
    clip = values.reshape(1, 3, 7, 1, -1)
    expected = to_pictures(VideoProcessor().postprocess_video(clip, output_type="np"))
    pixels = to_pixels(late().postprocess_video(clip, output_type="np"))
    assert np.array_equal(pixels.frames, expected)
    assert pixels.sha256 == frames_sha256(expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_value_of_a_half_precision_is_rounded_as_diffusers_does(dtype: torch.dtype) -> None:
    values = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    assert_equal_pixels(values[~values.isnan()])


def test_floats_around_every_border_between_two_pixels_are_rounded_as_diffusers_does() -> None:
    borders = ((torch.arange(-2, 258, dtype=torch.float64) + 0.5) / 255 * 2 - 1).float()
    near = borders[borders != 0].view(torch.int32)[:, None] + torch.arange(-60, 60, dtype=torch.int32)
    anywhere = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    assert_equal_pixels(torch.cat([near.view(torch.float32).flatten(), anywhere]))


def test_an_image_that_is_already_in_range_is_late_too() -> None:
    image = torch.rand(1, 3, 8, 16)
    expected = VaeImageProcessor().postprocess(image, output_type="np", do_denormalize=[False])
    found = late(VaeImageProcessor).postprocess(image=image, output_type="np", do_denormalize=[False])
    assert is_late(found)
    assert np.array_equal(to_pixels(found, are_images=True).frames, to_pictures(expected))


def test_a_clip_of_one_frame_is_late_too() -> None:
    clip = torch.randn(1, 3, 1, 8, 16)
    array, *found = (p.postprocess_video(clip, output_type="np") for p in (VideoProcessor(), late(), late()))
    assert all(map(is_late, found))
    assert np.array_equal(to_pixels(found[0]).frames, to_pictures(array))
    assert np.array_equal(np.asarray(found[1]), array)


def test_values_beyond_the_range_are_kept_as_they_are() -> None:
    light = torch.rand(1, 3, 5, 8, 8) * 4
    found = to_pixels(late(do_normalize=False).postprocess_video(light, output_type="np")).frames
    assert np.array_equal(found, light[0].permute(1, 2, 3, 0).numpy())


def test_what_cannot_be_kept_is_told_when_the_frames_are_asked_for() -> None:
    pixels = to_pixels(late().postprocess_video(torch.full((1, 3, 5, 8, 8), float("nan")), output_type="np"))
    with pytest.raises(RenderError, match="the frames contain NaN"):
        _ = pixels.frames


LOOKS: list[Callable[[Any], Any]] = [
    lambda frames: frames * 2,
    lambda frames: 1 - frames,
    lambda frames: np.stack([frames, frames]),
    lambda frames: np.asarray(frames),
    lambda frames: np.array(frames, dtype=np.float64),
    lambda frames: frames[0, 0],
    lambda frames: frames.mean(axis=0),
    lambda frames: (frames.shape, frames.dtype, len(frames)),
    lambda frames: list(frames),
    copy.deepcopy,
    lambda frames: pickle.loads(pickle.dumps(frames)),
]


@pytest.mark.parametrize("look", LOOKS)
def test_whoever_looks_sees_the_array_of_diffusers(look: Callable[[Any], Any]) -> None:
    clip = torch.randn(1, 3, 5, 8, 8)
    array, found = (p.postprocess_video(clip, output_type="np") for p in (VideoProcessor(), late()))
    assert is_late(found) and isinstance(found, np.ndarray)
    assert np.all(np.equal(look(found), look(array)) if look is not LOOKS[7] else look(found) == look(array))
    assert not is_late(found)


def test_the_thread_that_renders_does_hardly_any_of_it() -> None:
    clip = torch.randn(1, 3, 17, 128, 128)
    started = time.thread_time()
    expected = to_pictures(VideoProcessor().postprocess_video(clip, output_type="np"))
    at_once_s = time.thread_time() - started
    late_s = []
    for _ in range(5):  # the least counts: a collection of garbage may fall on one
        started = time.thread_time()
        pixels = to_pixels(late().postprocess_video(clip, output_type="np"))
        late_s.append(time.thread_time() - started)
    assert min(late_s) < at_once_s / 3
    assert np.array_equal(pixels.frames, expected)


def test_what_a_pipeline_writes_into_its_frames_is_in_the_clip() -> None:
    found = late().postprocess_video(torch.randn(1, 3, 5, 8, 8), output_type="np")
    found[:, 2] = 0
    assert not to_pixels(found).frames[2].any()


def test_other_calls_are_diffusers_own() -> None:
    clip, image = torch.rand(1, 3, 2, 8, 8), torch.rand(1, 3, 8, 8)
    assert isinstance(late().postprocess_video(clip, output_type="pt"), torch.Tensor)
    assert late().postprocess(image)[0].size == (8, 8)  # PIL
    assert type(late().postprocess_video(torch.rand(2, 3, 2, 8, 8), output_type="np")) is np.ndarray
    assert type(late().postprocess(torch.rand(1, 1, 8, 8), output_type="np")) is np.ndarray  # gray
    ldm = late(VaeImageProcessorLDM3D)
    assert type(ldm.postprocess(torch.rand(1, 6, 8, 8), output_type="np")[0]) is np.ndarray


def test_a_processor_that_rows_share_is_left_alone() -> None:
    shared = SimpleNamespace(processor=VideoProcessor())
    Looks(shared, TAIL, are_late=True)(shared)
    assert "postprocess_video" not in vars(shared.processor)


def test_a_fork_makes_frames_too() -> None:
    """Where its parent made some, and has a thread for it: a fork has no thread but its own."""
    clip = torch.rand(1, 3, 2, 8, 8)
    expected = to_pixels(late().postprocess_video(clip, output_type="np")).frames
    if pid := os.fork():
        assert os.waitpid(pid, 0) == (pid, 0)
        return
    signal.alarm(120)  # rather ended by it than waited for
    is_equal = False
    try:
        found = to_pixels(late().postprocess_video(clip, output_type="np")).frames
        is_equal = np.array_equal(found, expected)
    finally:
        os._exit(not is_equal)
