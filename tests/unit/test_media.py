"""Files are deterministic, lossless where they say so, show the right colours and carry their tags."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from fractions import Fraction
from typing import get_args

import av
import numpy as np
import pytest

from framefleet.pipeline.errors import JobError, RenderError, StoreError
from framefleet.pipeline.outputs.frames import Frames
from framefleet.pipeline.outputs.media import decode, encode, read_metadata
from framefleet.pipeline.outputs.media_settings import Media, MediaFormat

KINDS = get_args(MediaFormat)
TAGS = {"row_id": "00ff", "prompt": "一只猫在月球上\nsecond line, “quoted” 🐱", "seed": "7", "empty": ""}


def gradient(num_frames: int = 5, height: int = 48, width: int = 64) -> Frames:
    red = np.linspace(0, 255, width)[None, None, :] + np.zeros((num_frames, height, 1))
    green = np.linspace(0, 255, height)[None, :, None] + np.zeros((num_frames, 1, width))
    blue = np.linspace(0, 255, num_frames)[:, None, None] + np.zeros((1, height, width))
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def noise(*shape: int) -> Frames:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(4, 32, 48, 3), (3, 33, 47, 3), (1, 1, 1, 3)])
def test_mkv_gives_the_very_same_frames_back(shape: tuple[int, ...]) -> None:
    frames = noise(*shape)
    assert np.array_equal(decode(encode(frames, media=Media(format="mkv"), fps=16, metadata={})), frames)


def test_png_gives_the_very_same_frame_back() -> None:
    frames = noise(1, 33, 47, 3)
    assert np.array_equal(decode(encode(frames, media=Media(format="png"), fps=16, metadata={})), frames)


@pytest.mark.parametrize("frames", [gradient(), gradient(1), gradient(3, 33, 47), gradient(2, 32, 32)])
def test_mp4_shows_the_right_colours(frames: Frames) -> None:
    shown = decode(encode(frames, media=Media(crf=4), fps=16, metadata={}))
    assert shown.shape == frames.shape
    assert np.abs(shown.astype(int) - frames).mean() < 3


def test_mp4_says_which_colours_it_means() -> None:
    with av.open(io.BytesIO(encode(gradient(), media=Media(), fps=16, metadata={})), "r") as container:
        context = container.streams.video[0].codec_context
        tags = (context.color_range, context.colorspace, context.color_primaries, context.color_trc)
    assert tags == (1, 1, 1, 1)  # limited range, BT.709 thrice


def test_mp4_can_start_before_it_is_all_there() -> None:
    clip = encode(gradient(), media=Media(), fps=16, metadata={})
    assert clip.index(b"moov") < clip.index(b"mdat")


@pytest.mark.parametrize("kind", KINDS)
def test_tags_survive_in_every_format(kind: MediaFormat) -> None:
    frames = gradient(1)
    assert read_metadata(encode(frames, media=Media(format=kind), fps=16, metadata=TAGS)) == TAGS


def test_tags_lose_only_what_no_container_can_hold() -> None:
    clip = encode(gradient(), media=Media(), fps=16, metadata={"prompt": "a\0b \ud800 c"})
    assert read_metadata(clip) == {"prompt": "ab ? c"}


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(16, Fraction(16)), (23.976, Fraction(2997, 125)), (30000 / 1001, Fraction(30000, 1001))],
)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "png"])
def test_frame_rates_are_kept(kind: MediaFormat, fps: float, rate: Fraction) -> None:
    clip = encode(gradient(9), media=Media(format=kind), fps=fps, metadata={})
    with av.open(io.BytesIO(clip), "r") as container:
        assert container.streams.video[0].average_rate == pytest.approx(rate, rel=1e-3)
        assert container.duration == pytest.approx(9 / rate * 1_000_000, rel=0.02)


SCRIPT = """
import hashlib
from tests.unit.test_media import KINDS, TAGS, gradient
from framefleet.pipeline.outputs.media import encode
from framefleet.pipeline.outputs.media_settings import Media
for kind in KINDS:
    clip = encode(gradient(1), media=Media(format=kind), fps=23.976, metadata=TAGS)
    print(hashlib.sha256(clip).hexdigest())
"""


def test_another_process_writes_the_same_bytes() -> None:
    ours = [
        hashlib.sha256(encode(gradient(1), media=Media(format=kind), fps=23.976, metadata=TAGS)).hexdigest()
        for kind in KINDS
    ]
    theirs = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert theirs.stdout.split() == ours


def test_png_of_many_frames_is_refused_with_the_fix() -> None:
    with pytest.raises(RenderError, match="5") as caught:
        encode(gradient(), media=Media(format="png"), fps=16, metadata={})
    assert "mp4" in caught.value.fix


@pytest.mark.parametrize(
    "wrong", [{"format": "gif"}, {"crf": 52}, {"crf": -1}, {"crf": True}, {"fps": 0}, {"fps": float("nan")}]
)
def test_wrong_media_is_refused_where_it_enters(wrong: dict[str, object]) -> None:
    with pytest.raises(JobError) as caught:
        Media(**wrong)  # type: ignore[arg-type]  # the wrong types are the test
    assert caught.value.fix
    assert "format" not in wrong or all(kind in caught.value.fix for kind in KINDS)


@pytest.mark.parametrize("size", [0, 10, 300, 3000])
def test_the_start_of_a_clip_is_not_a_clip(size: int) -> None:
    broken = encode(noise(1, 64, 64, 3), media=Media(), fps=16, metadata={})[:size]
    with pytest.raises(StoreError, match="not a clip"):
        decode(broken)
