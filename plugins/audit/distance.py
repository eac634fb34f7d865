"""Measure the distance between the decoded frames of two clips."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefleet.api.clips import Frames
from framefleet.plugins.keep.replay.compare import difference

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_WINDOW = 7  # pixels a side, the default of scikit-image
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # from the paper


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """The distance between two clips, over all frames."""

    max_levels: float  # largest difference of a channel, of 255
    psnr_db: float  # infinite if nothing differs
    ssim: float  # -1 to 1, which means equal


NO_DISTANCE = Distance(max_levels=0.0, psnr_db=math.inf, ssim=1.0)


def distance_of(one: Frames, other: Frames) -> Distance:
    """Return the distance between frames (T, H, W, 3) of the same shape."""
    differing = difference(one, other)
    if not differing.num_pixels:
        return NO_DISTANCE
    ssim = float(np.mean([ssim_of(here, there) for here, there in zip(one, other, strict=True)]))
    return Distance(max_levels=differing.max_levels, psnr_db=differing.psnr_db, ssim=ssim)


def ssim_of(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Return the structural similarity of two frames (H, W, 3): the mean over the luma of windows.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment", IEEE TIP 13(4), 2004, equation 13, with
    uniform windows of 7 x 7 pixels; the edges are mirrored.
    """
    from scipy.ndimage import uniform_filter

    x, y = (frame @ _LUMA for frame in (one, other))
    mean_x, mean_y, xx, yy, xy = (uniform_filter(of, _WINDOW) for of in (x, y, x * x, y * y, x * y))
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    alike = (2 * mean_x * mean_y + _C1) * (2 * cov + _C2)
    return float((alike / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))).mean())
