"""Measure clips, without knowing what they show: from frames (T, H, W, 3) uint8 to one number.

Pure functions, with the same result on every machine up to the last bits of a mean. Luma is BT.601's, 0 to 1.
A measure that needs more frames is None, e.g. the motion of an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from framefleet.api.clips import Frames

Luma = npt.NDArray[np.float32]  # (H, W), 0 to 1

_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32) / 255  # ITU-R BT.601
_MOST_FRAMES = 8  # for sharpness and models, which are slow; neighbouring frames show much the same
_BLUR = 9  # pixels of the filter by Crete et al.
# FFmpeg's blackdetect, pixel_black_th and picture_black_ratio_th.
_BLACK_PIXEL, _BLACK_FRAME = 0.10, 0.98
_FROZEN = 0.001  # FFmpeg's freezedetect, noise
_CELLS = 4  # per side, for flicker
# A frame is torn if it is this many times as far from both neighbours as these are from each other, and
# farther than noise and compression explain.
_TORN_TIMES, _TORN_LEAST = 2.0, 0.02


def sharpness(frames: Frames) -> float:
    """Return how much detail can be blurred away, 0 (blurred, or flat) to 1: the mean of up to 8 frames.

    1 minus the blur effect of Crete, Dolmiere, Ladret and Nicolas (SPIE 6492, 2007): a frame is blurred
    again, and the share of differences between neighbouring pixels that this removes says how sharp it was.
    Does not depend on contrast; noise counts as sharp. Frames of one colour, e.g. black ones, are 0.
    """
    lumas = map(_luma, some_frames(frames))
    return float(np.mean([min(_blurred_share(luma), _blurred_share(luma.T)) for luma in lumas]))


def some_frames(frames: Frames) -> Frames:
    """Return up to 8 evenly spaced frames, including the first and the last."""
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), _MOST_FRAMES)).round().astype(int)
    return frames[chosen]


def motion(frames: Frames) -> float | None:
    """Return how much changes from frame to frame: the mean absolute difference of luma, 0 to 1.

    Counts all changes: objects, camera, cuts and flicker. Per frame, so half as much at twice the rate. None
    for fewer than two frames.
    """
    return float(np.mean(list(_differences(frames)))) if len(frames) > 1 else None


def flicker(frames: Frames) -> float | None:
    """Return how much brightness goes up and down again, 0 to 1; a fade or a slow pan does not count.

    Half the mean absolute second difference over time of the mean luma in 4 x 4 parts of the picture. 1 is
    alternating black and white. None for fewer than three frames.
    """
    if len(frames) < 3:
        return None
    cells = np.stack([_cells(_luma(frame)) for frame in frames])
    return float(np.abs(cells[:-2] - 2 * cells[1:-1] + cells[2:]).mean() / 2)


def is_black(frames: Frames) -> bool:
    """Whether every frame is black: 98 % of its pixels have a luma of 0.1 or less.

    These are the defaults of FFmpeg's blackdetect. If a model returns NaN, diffusers writes black.
    """
    return all(float((_luma(frame) <= _BLACK_PIXEL).mean()) >= _BLACK_FRAME for frame in frames)


def is_static(frames: Frames) -> bool | None:
    """Whether nothing moves: no two consecutive frames differ by a mean of 0.001 or more.

    This is the default of FFmpeg's freezedetect, -60 dB. None for fewer than two frames.
    """
    return all(change < _FROZEN for change in _differences(frames)) if len(frames) > 1 else None


def num_torn_frames(frames: Frames) -> int | None:
    """Return how many frames differ from both neighbours, while these are similar to each other.

    For example a flash, a broken decode, or a different picture. By the mean absolute difference of luma,
    such a frame is at least twice as far from each neighbour as these are from each other, and at least 0.02.
    The first and last frames have only one neighbour, and are not judged. None for fewer than three frames.
    """
    if len(frames) < 3:
        return None
    lumas = (_luma(frame) for frame in frames)
    before, frame = next(lumas), next(lumas)
    count = 0
    for after in lumas:
        apart = min(_apart(before, frame), _apart(frame, after))
        count += apart >= max(_TORN_LEAST, _TORN_TIMES * _apart(before, after))
        before, frame = frame, after
    return count


def _luma(frame: Frames) -> Luma:
    return np.matmul(frame, _WEIGHTS, dtype=np.float32)


def _apart(one: Luma, other: Luma) -> float:
    return float(np.abs(one - other).mean())


def _differences(frames: Frames) -> Iterator[float]:
    for one, other in pairwise(map(_luma, frames)):
        yield _apart(one, other)


def _blurred_share(luma: Luma) -> float:
    """Return the share of the differences along the first axis that a blur removes."""
    there = np.abs(np.diff(luma, axis=0)).astype(np.float64)
    if not (total := there.sum()):
        return 0.0
    blurred = np.abs(np.diff(_blurred(luma), axis=0))
    return float(np.maximum(there - blurred, 0).sum() / total)


def _blurred(luma: Luma) -> npt.NDArray[np.float64]:
    """Return the mean of 9 pixels along the first axis, with repeated edges."""
    half = _BLUR // 2
    padded: npt.NDArray[np.float64] = np.pad(luma.astype(np.float64), ((half + 1, half), (0, 0)), mode="edge")
    sums = padded.cumsum(axis=0)
    return (sums[_BLUR:] - sums[:-_BLUR]) / _BLUR


def _cells(luma: Luma) -> npt.NDArray[np.float64]:
    """Return the mean luma of 4 x 4 parts, or fewer if a side has fewer pixels."""
    rows, columns = (np.array_split(np.arange(side), min(_CELLS, side)) for side in luma.shape)
    return np.array(
        [[luma[r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean(dtype=np.float64) for c in columns] for r in rows]
    )
