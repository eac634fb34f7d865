"""From two clips of one row to how much they differ: in pixels, levels and decibels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefleet.pipeline.outputs.frames.audio import Pcm
from framefleet.pipeline.outputs.frames.frames import Frames, Pictures
from framefleet.pipeline.outputs.media.media import decode

_LEVELS, _SOUND_PEAK = 255.0, 32767.0
_BLOCK = 8  # pixels a side: what is wrong in one place is lost in a mean over all of a clip
# An encoder makes more of one pattern of single levels than of another. Of 29 patterns, in 16 clips and
# encoders, those of `one_level` were surpassed by 1.0 dB at most, and by a worst block 1.6 times as different
# (`python -m tools.benchmarks.one_level`); by 4 levels everywhere, with H.264 at its default, by 3 dB.
_MARGIN_DB, _MARGIN_FACTOR = 1.5, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much frames differ. max_levels: the largest difference of a channel, of 255; psnr_db: over all
    channels, infinite where nothing differs; worst_block: the root of the mean square of the one block of a
    frame that differs most, in levels.
    """

    num_pixels: int
    share: float
    max_levels: float
    psnr_db: float
    worst_block: float

    def is_like(self, one_level: Difference) -> bool:
        """Whether they differ no more than an encoder makes frames differ that were one level off."""
        return (
            self.psnr_db >= one_level.psnr_db - _MARGIN_DB
            and self.worst_block <= one_level.worst_block * _MARGIN_FACTOR
        )


def difference(one: Pictures, other: Pictures) -> Difference:
    """Return how much frames of one shape differ; floats in 255ths."""
    unit = 1.0 if one.dtype == np.uint8 else _LEVELS
    num_pixels, max_levels, squares, worst = 0, 0.0, 0.0, 0.0
    for here, there in zip(one, other, strict=True):  # frame by frame: differences are wider than pixels
        levels = np.abs(here.astype(np.float32) - there.astype(np.float32)) * unit  # (H, W, C)
        num_pixels += int((levels.max(axis=-1) > 0).sum())
        max_levels = max(max_levels, float(levels.max()))
        blocks = _by_block(np.square(levels, dtype=np.float64).mean(axis=-1))
        squares += float(blocks.sum())
        worst = max(worst, float(blocks.max()))
    return Difference(
        num_pixels=num_pixels,
        share=num_pixels / math.prod(one.shape[:3]),
        max_levels=max_levels,
        psnr_db=_psnr(squares / math.prod(one.shape[:3]), _LEVELS),
        worst_block=math.sqrt(worst) / _BLOCK,
    )


def _by_block(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return sums of (H, W) by block; those at the ends may be smaller."""
    for axis, side in enumerate(values.shape):
        values = np.add.reduceat(values, range(0, side, _BLOCK), axis=axis)
    return values


def one_level(frames: Frames, encode: Callable[[Frames], bytes]) -> Difference:
    """Return what an encoder makes of one level in every channel of every pixel: the worse of two patterns.

    One takes all levels up, the other some up and some down. Both clips are compared as they are decoded.
    """
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), frames.shape)
    as_is = decode(encode(frames))
    found = [difference(as_is, decode(encode(_moved(frames, sign)))) for sign in (np.int8(1), signs)]
    return Difference(
        num_pixels=max(one.num_pixels for one in found),
        share=max(one.share for one in found),
        max_levels=max(one.max_levels for one in found),
        psnr_db=min(one.psnr_db for one in found),
        worst_block=max(one.worst_block for one in found),
    )


def _moved(frames: Frames, sign: np.int8 | np.ndarray) -> Frames:
    """Return frames one level up (1) or down (-1); where there is none, the other way."""
    up = (frames < 255) & ((sign > 0) | (frames == 0))
    return np.where(up, frames + np.uint8(1), frames - np.uint8(1)).astype(np.uint8)


def sound_psnr_db(sounds: tuple[Pcm, Pcm] | None) -> float | None:
    """Return decibels; None where there are not two sounds of one shape."""
    if sounds is None or sounds[0].shape != sounds[1].shape:
        return None
    levels = sounds[0].astype(np.float64) - sounds[1]
    return _psnr(float(np.square(levels).mean()), _SOUND_PEAK)


def _psnr(mean_square: float, peak: float) -> float:
    return 10 * math.log10(peak**2 / mean_square) if mean_square else math.inf
