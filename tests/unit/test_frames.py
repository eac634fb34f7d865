"""to_frames takes what recipes return, rounds as diffusers does, and refuses what is not one RGB clip.

Postprocessing that is put off gives the same, and diffusers' array to whoever looks.
"""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor, VaeImageProcessorLDM3D
from diffusers.video_processor import VideoProcessor
from PIL import Image

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.outputs.frames.frames import (
    frames_sha256,
    is_late,
    to_frames,
    to_pictures,
    to_pixels,
)
from framefleet.pipeline.render.recipe_call import Looks, Tails

FLOATS = np.random.default_rng(0).random((5, 6, 8, 3), dtype=np.float32)
BYTES = (FLOATS * 255).round().astype(np.uint8)


def channels_first(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(FLOATS).permute(0, 3, 1, 2).to(dtype)


@pytest.mark.parametrize(
    ("name", "postprocess", "num_frames", "kinds"),
    [
        ("frames", VideoProcessor().postprocess_video, 5, ("pil", "np", "pt")),
        ("images", VaeImageProcessor().postprocess, None, ("pil", "np", "pt")),
        (
            "frames",
            lambda sample, **kind: VideoProcessor().postprocess_video(sample.bfloat16(), **kind),
            5,
            ("pil", "pt"),
        ),
    ],
    ids=["video", "image", "bfloat16"],
)
def test_every_output_type_of_diffusers_gives_the_same_frames(
    name: str, postprocess: Any, num_frames: int | None, kinds: tuple[str, ...]
) -> None:
    shape = [1, 3, 16, 16] if num_frames is None else [1, 3, num_frames, 16, 16]
    sample = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    first, *others = (
        to_frames(SimpleNamespace(**{name: postprocess(sample, output_type=kind)})) for kind in kinds
    )
    assert first.shape == (num_frames or 1, 16, 16, 3)
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize(
    "output",
    [
        FLOATS,
        FLOATS[None],
        BYTES,
        list(BYTES),
        [Image.fromarray(frame) for frame in BYTES],
        [[Image.fromarray(frame) for frame in BYTES]],
        (FLOATS[None],),
        channels_first(),
        channels_first()[None],
        list(channels_first()),
        torch.from_numpy(BYTES).permute(0, 3, 1, 2),
        np.asfortranarray(BYTES),
    ],
    ids=lambda output: type(output).__name__,
)
def test_a_clip_may_come_in_many_wrappings(output: Any) -> None:
    frames = to_frames(output)
    assert np.array_equal(frames, BYTES)
    assert frames.flags.c_contiguous


@pytest.mark.parametrize("output", [FLOATS[0], BYTES[0], channels_first()[0], Image.fromarray(BYTES[0])])
def test_one_image_is_a_clip_of_one_frame(output: Any) -> None:
    assert np.array_equal(to_frames(output), BYTES[:1])


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (np.stack([FLOATS, FLOATS]), r"batch of 2 clips, shape \(2, 5, 6, 8, 3\)"),
        (SimpleNamespace(images=FLOATS), "batch of 5 clips"),
        (FLOATS[..., :1], r"\(5, 6, 8, 1\)"),
        (np.concatenate([FLOATS, FLOATS[..., :1]], axis=-1), r"\(5, 6, 8, 4\)"),
        (FLOATS[:0], r"\(0, 6, 8, 3\)"),
        (torch.zeros(5, 16, 6, 8), r"\(5, 6, 8, 16\)"),
        (Image.new("L", (8, 6)), "mode L"),
        (Image.new("RGBA", (8, 6)), "with alpha"),
        ([BYTES[0], BYTES[0, :4]], "2 different shapes"),
        ([], "0 frames"),
        (BYTES.astype(np.int64), "int64"),
        (FLOATS * 2 - 1, r"not \[0, 1\]"),
        (FLOATS * 255, r"not \[0, 1\]"),
        (np.full_like(FLOATS, np.inf), "infinity"),
        (np.where(FLOATS[3, 2, 1, 0] == FLOATS, np.nan, FLOATS), r"NaN.*(.|\n)*bf16 or fp32"),
        (None, "NoneType"),
    ],
)
def test_what_is_not_one_rgb_clip_is_refused(output: Any, said: str) -> None:
    with pytest.raises(RenderError, match=said) as caught:
        to_frames(output)
    assert caught.value.fix


def test_the_digest_covers_the_shape_and_the_bytes() -> None:
    expected = hashlib.sha256(b"uint8 5x6x8x3\n" + BYTES.tobytes()).hexdigest()
    assert frames_sha256(BYTES) == expected
    assert frames_sha256(BYTES.reshape(5, 8, 6, 3)) != expected


def test_floats_beyond_the_range_are_kept_as_they_were_returned() -> None:
    array = np.full((1, 2, 2, 3), 1.5, np.float32)
    frames = to_pictures(array)
    array[:] = 0
    assert (frames == 1.5).all()


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


def test_an_image_that_is_already_in_range_and_a_clip_of_one_frame_are_late_too() -> None:
    image = torch.rand(1, 3, 8, 16)
    expected = VaeImageProcessor().postprocess(image, output_type="np", do_denormalize=[False])
    found = late(VaeImageProcessor).postprocess(image=image, output_type="np", do_denormalize=[False])
    assert is_late(found)
    assert np.array_equal(to_pixels(found, are_images=True).frames, to_pictures(expected))
    clip = torch.randn(1, 3, 1, 8, 16)
    array, *frames = (p.postprocess_video(clip, output_type="np") for p in (VideoProcessor(), late(), late()))
    assert all(map(is_late, frames))
    assert np.array_equal(to_pixels(frames[0]).frames, to_pictures(array))
    assert np.array_equal(np.asarray(frames[1]), array)


def test_values_beyond_the_range_are_kept_and_what_cannot_be_is_told_when_asked_for() -> None:
    light = torch.rand(1, 3, 5, 8, 8) * 4
    found = to_pixels(late(do_normalize=False).postprocess_video(light, output_type="np")).frames
    assert np.array_equal(found, light[0].permute(1, 2, 3, 0).numpy())
    pixels = to_pixels(late().postprocess_video(light * float("nan"), output_type="np"))
    with pytest.raises(RenderError, match="the frames contain NaN"):
        _ = pixels.frames


LOOKS: list[Callable[[Any], Any]] = [
    lambda frames: frames * 2,
    lambda frames: np.stack([frames, frames]),
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
    shown, expected = look(found), look(array)
    assert shown == expected if isinstance(shown, tuple) else np.all(np.equal(shown, expected))
    assert not is_late(found)


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
    shared = SimpleNamespace(processor=VideoProcessor())  # by rows
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
