"""to_frames takes what recipes return, rounds as diffusers does, and refuses what is not one RGB clip."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.video_processor import VideoProcessor
from PIL import Image

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames, to_pictures

FLOATS = np.random.default_rng(0).random((5, 6, 8, 3), dtype=np.float32)
BYTES = (FLOATS * 255).round().astype(np.uint8)


def channels_first(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(FLOATS).permute(0, 3, 1, 2).to(dtype)


def test_every_output_type_of_a_diffusers_video_gives_the_same_frames() -> None:
    sample = torch.randn(1, 3, 5, 16, 16, generator=torch.Generator().manual_seed(1))
    processor = VideoProcessor()
    frames = [
        to_frames(SimpleNamespace(frames=processor.postprocess_video(sample, output_type=kind)))
        for kind in ("pil", "np", "pt")
    ]
    assert frames[0].shape == (5, 16, 16, 3)
    assert all(np.array_equal(frames[0], other) for other in frames)


def test_every_output_type_of_a_diffusers_image_gives_the_same_frame() -> None:
    sample = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    processor = VaeImageProcessor()
    frames = [
        to_frames(SimpleNamespace(images=processor.postprocess(sample, output_type=kind)))
        for kind in ("pil", "np", "pt")
    ]
    assert frames[0].shape == (1, 16, 16, 3)
    assert all(np.array_equal(frames[0], other) for other in frames)


def test_bfloat16_video_rounds_as_diffusers_own_pil_output() -> None:
    sample = torch.randn(1, 3, 5, 16, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    pil, pt = (VideoProcessor().postprocess_video(sample, output_type=kind) for kind in ("pil", "pt"))
    assert np.array_equal(to_frames(SimpleNamespace(frames=pil)), to_frames(SimpleNamespace(frames=pt)))


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
        (FLOATS[0, 0], r"\(8, 3\)"),
        (FLOATS[:0], r"\(0, 6, 8, 3\)"),
        (torch.zeros(3, 8), r"\(3, 8\)"),
        (torch.zeros(5, 16, 6, 8), r"\(5, 6, 8, 16\)"),
        (Image.new("L", (8, 6)), "mode L"),
        (Image.new("RGBA", (8, 6)), "with alpha"),
        (Image.new("CMYK", (8, 6)), "mode CMYK"),
        ([BYTES[0], BYTES[0, :4]], "2 different shapes"),
        ([], "0 frames"),
        (BYTES.astype(np.int64), "int64"),
        (FLOATS * 2 - 1, r"not \[0, 1\]"),
        (FLOATS * 255, r"not \[0, 1\]"),
        (np.full_like(FLOATS, np.inf), "infinity"),
        (None, "NoneType"),
        ("clip.mp4", "str"),
    ],
)
def test_what_is_not_one_rgb_clip_is_refused(output: Any, said: str) -> None:
    with pytest.raises(RenderError, match=said) as caught:
        to_frames(output)
    assert caught.value.fix


def test_nan_is_refused_naming_the_dtypes_that_help() -> None:
    broken = FLOATS.copy()
    broken[3, 2, 1, 0] = np.nan
    with pytest.raises(RenderError, match="NaN") as caught:
        to_frames(broken)
    assert "bf16 or fp32" in caught.value.fix


def test_the_digest_covers_the_shape_and_the_bytes() -> None:
    expected = hashlib.sha256(b"uint8 5x6x8x3\n" + BYTES.tobytes()).hexdigest()
    assert frames_sha256(BYTES) == expected
    assert frames_sha256(BYTES.reshape(5, 8, 6, 3)) != expected


def test_floats_beyond_the_range_are_kept_as_they_were_returned() -> None:
    array = np.full((1, 2, 2, 3), 1.5, np.float32)
    frames = to_pictures(array)
    array[:] = 0
    assert (frames == 1.5).all()
