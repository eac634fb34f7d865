"""Measures of clips, shown on clips whose answer is known: bars, noise, fades, flashes, nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def test_a_frame_unlike_both_of_its_neighbours_is_torn() -> None:
    torn = bars([0, 1, 2, 3, 4, 5])
    assert num_torn_frames(torn) == 0
    torn[2] = 255 - torn[2]
    assert num_torn_frames(torn) == 1
    assert num_torn_frames(grey(0, 0, 200, 200)) == 0  # a cut
    assert num_torn_frames(grey(0, 60, 120, 180)) == 0  # a fade


DOT = np.zeros((3, 1, 1, 3), np.uint8)
DUST = grey(0)
DUST[0, 0, :20] = 255  # 1.3 %


@pytest.mark.parametrize(
    ("measure", "clip", "value"),
    [
        (sharpness, grey(0, 128, 255), 0),
        (sharpness, DOT, 0),
        (motion, grey(0, 51, 102), 0.2),
        (motion, grey(9, 9), 0),
        (motion, grey(80), None),  # of one frame
        (motion, DOT, 0),
        (flicker, grey(0, 255, 0, 255), 1),
        (flicker, grey(0, 51, 102, 153), 0),  # a fade
        (flicker, grey(80, 90), None),
        (flicker, DOT, 0),
        (is_black, grey(0, 25, 10), True),
        (is_black, grey(0, 0, 200), False),
        (is_black, DUST, True),
        (is_static, grey(80, 80, 80), True),
        (is_static, grey(80, 80, 81), False),
        (is_static, bars([0, 0, 1]), False),
        (is_static, grey(80), None),
        (is_static, DOT, True),
        (num_torn_frames, grey(80, 90), None),
    ],
)
def test_clips_whose_measure_is_known(measure: Callable[[Frames], object], clip: Frames, value: Any) -> None:
    found = measure(clip)
    assert found is None if value is None else found == pytest.approx(value, abs=1e-6)


def test_what_moves_further_has_more_motion_and_noise_is_sharp() -> None:
    assert sharpness(np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8)) > 0.8
    assert motion(bars([0, 4])) < motion(bars([0, 8]))  # type: ignore[operator]
