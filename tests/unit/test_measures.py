"""Measures of clips, shown on clips whose answer is known: bars, noise, fades, flashes, nothing at all."""

from __future__ import annotations

import numpy as np
import pytest

from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.plugins.scores.measures import (
    flicker,
    is_black,
    is_static,
    motion,
    num_torn_frames,
    sharpness,
)

HEIGHT, WIDTH = 32, 48


def grey(*levels: int) -> Frames:
    """A frame of one colour for each level."""
    return np.stack([np.full((HEIGHT, WIDTH, 3), level, np.uint8) for level in levels])


def bars(shifts: list[int]) -> Frames:
    """Upright bars, 16 pixels wide, moved to the right."""
    row = (np.arange(WIDTH) // 16 % 2 * 255).astype(np.uint8)
    frame = np.repeat(np.tile(row, (HEIGHT, 1))[..., None], 3, axis=-1)
    lying = np.transpose(np.tile(row[:HEIGHT], (WIDTH, 1)), (1, 0))[..., None]
    return np.stack([np.maximum(np.roll(frame, shift, axis=1), lying) for shift in shifts])


def blurred(frames: Frames, times: int) -> Frames:
    soft = frames.astype(np.float32)
    for _ in range(times):
        for axis in (1, 2):
            soft = (np.roll(soft, 1, axis) + soft + np.roll(soft, -1, axis)) / 3
    return soft.round().astype(np.uint8)


def test_sharpness_falls_with_every_blur_and_does_not_depend_on_contrast() -> None:
    clip = bars([0, 4, 8])
    found = [sharpness(blurred(clip, times)) for times in (0, 1, 3, 9)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.7 > 0.4 > found[-1]
    assert sharpness(clip // 5) == pytest.approx(found[0], abs=0.01)


def test_a_frame_of_one_colour_has_no_sharpness_and_noise_has_much() -> None:
    assert sharpness(grey(0, 128, 255)) == 0.0
    noise = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8)
    assert sharpness(noise) > 0.8


def test_motion_is_the_mean_difference_of_luma_from_frame_to_frame() -> None:
    assert motion(grey(0, 51, 102)) == pytest.approx(0.2, abs=1e-6)
    assert motion(grey(9, 9)) == 0.0
    assert motion(bars([0, 4])) < motion(bars([0, 8]))  # type: ignore[operator]


def test_flicker_is_up_and_down_again_and_a_fade_has_none() -> None:
    assert flicker(grey(0, 255, 0, 255)) == pytest.approx(1.0, abs=1e-6)
    assert flicker(grey(0, 51, 102, 153)) == pytest.approx(0.0, abs=1e-6)


def test_a_clip_is_black_when_all_of_its_frames_are() -> None:
    assert is_black(grey(0, 25, 10))
    assert not is_black(grey(0, 0, 200))
    with_dust = grey(0)
    with_dust[0, 0, :20] = 255  # 1.3 %
    assert is_black(with_dust)


def test_a_clip_is_static_when_nothing_ever_moves() -> None:
    assert is_static(grey(80, 80, 80))
    assert not is_static(grey(80, 80, 81))
    assert not is_static(bars([0, 0, 1]))


def test_a_frame_unlike_both_of_its_neighbours_is_torn() -> None:
    torn = bars([0, 1, 2, 3, 4, 5])
    assert num_torn_frames(torn) == 0
    torn[2] = 255 - torn[2]
    assert num_torn_frames(torn) == 1
    assert num_torn_frames(grey(0, 0, 200, 200)) == 0  # a cut
    assert num_torn_frames(grey(0, 60, 120, 180)) == 0  # a fade


def test_what_needs_more_frames_than_there_are_is_none() -> None:
    image, pair = grey(80), grey(80, 90)
    assert (motion(image), is_static(image), flicker(image), num_torn_frames(image)) == (None,) * 4
    assert (flicker(pair), num_torn_frames(pair)) == (None, None)
    assert motion(pair) is not None
    assert is_black(grey(0))


def test_a_frame_of_one_pixel_is_measured_too() -> None:
    dot = np.zeros((3, 1, 1, 3), np.uint8)
    assert (sharpness(dot), motion(dot), flicker(dot), is_static(dot)) == (0.0, 0.0, 0.0, True)
