"""The watermark `spread` in frames: cells a few levels lighter or darker, the same in every frame.

It needs no weights and is not secret, so anybody can read, remove or forge it. A tile of 64 x 64 cells of 4 x
4 pixels (payload.py) repeats over the whole picture. Cells differ by 1 level where the picture is flat, and
by up to 3 where it is busy. All numbers are exact in floating point, so every device gives the same bits.

The reader flattens the picture's content, averages the frames, and adds up the tiles, for each size to which
the file may have been scaled. Rotated, mirrored or stretched pictures are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from framefleet.api.clips import Frames
from framefleet.plugins.marks.payload import NUM_BITS, Bits, Plane, Reading, chips

if TYPE_CHECKING:
    import torch

_GRID, _CELL = 64, 4
_TILE = _GRID * _CELL
_CHIPS = chips("spread 1", (_GRID, _GRID))
_BLOCK = 8  # pixels a side of the blocks that measure how busy a picture is
_SLOPE, _STRONGEST = 3 / 16, 3  # levels per level of mean deviation, exact in floating point
_AT_ONCE = 1 << 19  # pixels; a frame of 480p stays in the cache
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Sizes of a file relative to its clip: common ones, then all from a quarter to two and a half times. With
# steps of 1.2 %, cells at the border of a region of 512 pixels are off by at most half a cell.
_COMMON = (1.0, 1 / 2, 2 / 3, 3 / 4, 3 / 2, 2.0, 4 / 3, 10 / 9, 1.25, 0.8, 0.9, 1 / 3)
_SCAN = tuple(float(scale) for scale in np.geomspace(0.25, 2.5, 193))
# In thousandths: half a step, and variations of the height, which is also rounded to whole pixels.
_NEAR = sorted(product((0, -2, 2, -4, 4, -6, 6), repeat=2), key=lambda at: (abs(at[0] - at[1]), abs(at[0])))
del _NEAR[29:]
_REGION = 512  # pixels a side of the region in which sizes are tried
_SUSPECT = 5.2  # standard deviations of a peak among 65,536 places; one in a dozen readings of noise passes
_MOST_TRIED = 6
# Pixels of a frame. After x264 with crf 23, in 8 scenes of 1 or 9 frames, it was found in none at 64 x 64 and
# 128 x 128, in 4 or 5 at 192 x 192, and in all at 192 x 256.
RELIABLE_PIXELS = 192 * 256
# Pixels of a clip at its own size, like `LARGEST_FRAME` in pipeline/outputs/media/media_settings.py.
_MOST_PIXELS = 1 << 26


class SpreadFrames:
    """Implements `FrameMark` of watermark.py."""

    num_bits = NUM_BITS

    @staticmethod
    def embed(frames: Frames, bits: Bits, *, device: str = "cpu") -> Frames:
        """Return frames (T, H, W, 3 or 4) with the watermark; alpha is unchanged. bits: 256."""
        import torch

        num_frames, height, width, _ = frames.shape
        cells = -(-height // _CELL), -(-width // _CELL)
        repeats = [-(-count // _GRID) for count in cells]
        pattern = torch.from_numpy(np.tile(_CHIPS.tile(bits), repeats)[: cells[0], : cells[1]]).to(device)
        marked, step = frames.copy(), max(1, _AT_ONCE // (height * width))
        for first in range(0, num_frames, step):
            part = torch.from_numpy(np.ascontiguousarray(frames[first : first + step, ..., :3])).to(device)
            marked[first : first + step, ..., :3] = _marked(part, pattern).cpu().numpy()
        return marked

    @staticmethod
    def read(frames: Iterable[Frames], *, is_quick: bool = False) -> Iterator[Reading]:
        """Yield possible payloads, the most likely first. frames: uint8 RGB (H, W, 3), all of one size.

        is_quick: only try their own size.
        """
        from scipy.ndimage import uniform_filter

        # Sum of the frames' brightness without large shapes and strong edges, by the radius of flattening,
        # which is smaller for pictures that were scaled down.
        flat: dict[int, Plane] = {}
        for frame in frames:
            light = frame @ _LUMA
            for side in (5, 9, 17):
                rest = light - uniform_filter(light, side)
                # Keep noise small in flat areas.
                usual = np.sqrt(uniform_filter(rest * rest, 2 * side + 1).clip(0)) + 1.5
                flat[side] = flat.get(side, 0) + (rest / usual).clip(-2, 2)
        if not flat:
            return
        size = _at_scale(flat, 1.0).size
        for scales in ((1.0,),) if is_quick else (_COMMON, _SCAN):
            possible = [scale for scale in scales if size <= _MOST_PIXELS * scale**2]
            peaks = [(_locate_tile(_central(flat, scale))[0], scale) for scale in possible]
            peaks.sort(reverse=True)
            suspects = [scale for height, scale in peaks[:_MOST_TRIED] if height > _SUSPECT]
            for scale in suspects:
                plane = _at_scale(flat, scale)  # the whole picture, at nearby sizes
                for down, across in _NEAR:
                    sizes = (scale * (1 + down / 1000), scale * (1 + across / 1000))
                    stands_out, tile = _locate_tile(_resized(plane, *sizes))
                    if stands_out > _SUSPECT:
                        cells = tile.reshape(_GRID, _CELL, _GRID, _CELL).sum((1, 3))
                        yield Reading(soft=_CHIPS.soft(cells), scale=sizes[1])


def _marked(part: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """Return frames (t, H, W, 3) with a pattern of cells. All sums and means are exact in floating point."""
    import torch
    from torch.nn.functional import avg_pool2d, pad

    _, height, width, _ = part.shape
    green = part[:, ::2, ::2, 1].float()[:, None]  # the eye is most sensitive to green; every second pixel
    side = _BLOCK // 2
    green = pad(green, (0, -green.shape[-1] % side, 0, -green.shape[-2] % side), mode="replicate")
    busy = avg_pool2d((green - _enlarged(avg_pool2d(green, side), side)).abs(), side)
    strength = (1 + busy * _SLOPE).floor().clamp(1, _STRONGEST)
    cells = _enlarged(strength, _BLOCK // _CELL)[:, 0, : pattern.shape[0], : pattern.shape[1]] * pattern
    change = cells.to(torch.int16).repeat_interleave(3 * _CELL, 2)[..., : 3 * width]
    light = part.reshape(-1, height, 3 * width).to(torch.int16)
    light += change.repeat_interleave(_CELL, 1)[:, :height]
    return light.clamp_(0, 255).to(torch.uint8).reshape(part.shape)


def _enlarged(blocks: torch.Tensor, side: int) -> torch.Tensor:
    return blocks.repeat_interleave(side, -1).repeat_interleave(side, -2)


@cache
def _sync() -> npt.NDArray[np.complex64]:
    """Return the spectrum used to find where a tile begins."""
    return np.conj(np.fft.rfft2(np.kron(_CHIPS.tile(None), np.ones((_CELL, _CELL), np.float32))))


def _at_scale(flat: dict[int, Plane], scale: float) -> Plane:
    return flat[5 if scale < 0.7 else 9 if scale < 1.5 else 17]


def _central(flat: dict[int, Plane], scale: float) -> Plane:
    """Return the middle of the picture, at the clip's own size."""
    plane = _at_scale(flat, scale)
    sides = [min(side, max(1, round(_REGION * scale))) for side in plane.shape]
    top, left = ((whole - side) // 2 for whole, side in zip(plane.shape, sides, strict=True))
    return _resized(plane[top : top + sides[0], left : left + sides[1]], scale, scale)


def _resized(plane: Plane, down: float, across: float) -> Plane:
    """Undo the scaling of a plane."""
    if down == across == 1:
        return plane
    size = (max(1, round(plane.shape[1] / across)), max(1, round(plane.shape[0] / down)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, Image.Resampling.BICUBIC))


def _locate_tile(plane: Plane) -> tuple[float, npt.NDArray[np.float64]]:
    """Return how much the best start of a tile stands out, and the mean tile from there."""
    height, width = plane.shape
    whole = np.pad(plane, ((0, -height % _TILE), (0, -width % _TILE)))
    tile = whole.reshape(-1, _TILE, whole.shape[1] // _TILE, _TILE).sum((0, 2))
    match = np.fft.irfft2(np.fft.rfft2(tile) * _sync(), s=tile.shape)
    best = int(match.argmax())
    stands_out = (match.flat[best] - match.mean()) / (match.std() or 1)
    return float(stands_out), np.roll(tile, (-(best // _TILE), -(best % _TILE)), (0, 1))
