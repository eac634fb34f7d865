"""From a video to the frames of a bucket."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from framefleet.plugins.train.dataset.prepared_cache import fitted_frames
from framefleet.plugins.train.task import Bucket


def pictures(height: int, width: int, count: int = 3) -> Iterator[Image.Image]:
    """Yield pictures whose red is the column, whose green is the row and whose blue is their number."""
    for number in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[..., 0], frame[..., 1], frame[..., 2] = np.arange(width), np.arange(height)[:, None], number
        yield Image.fromarray(frame)


def test_frames_are_taken_from_the_start_and_the_middle_as_they_are() -> None:
    made = fitted_frames(pictures(16, 32, count=5), Bucket(num_frames=3, height=16, width=32))
    assert made.dtype == np.uint8 and made.shape == (3, 16, 32, 3)
    assert (made == np.stack([np.asarray(picture) for picture in pictures(16, 32)])).all()
    made = fitted_frames(pictures(32, 64), Bucket(num_frames=1, height=32, width=32))
    assert (made[0, 0, :, 0] == np.arange(16, 48)).all(), "the middle of a wider picture"


def test_a_larger_picture_is_made_smaller_without_aliasing() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    made = fitted_frames([Image.fromarray(stripes)], Bucket(num_frames=1, height=16, width=16))
    assert (abs(made[:, 2:-2, 2:-2].astype(int) - 127) < 8).all()
