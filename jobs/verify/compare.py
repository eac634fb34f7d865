"""From a row's stored clip and the same row rendered again to what differs: nothing, a level, or how much."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from framefleet.jobs.replay.replay import compared_digests
from framefleet.pipeline.errors import StoreError
from framefleet.pipeline.outputs.media.media import decode, decode_audio
from framefleet.pipeline.outputs.media.media_settings import LOSSY
from framefleet.pipeline.outputs.parts.records import Record

Likeness = Literal["bit-exact", "off by one", "different", "not rendered"]
_PEAK, _SOUND_PEAK = 255.0, 32767.0
_FILE = "media_sha256"  # may differ by its codec's version


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What two clips of one row are to each other.

    bit-exact: all that was recorded is equal. off by one: frames differ by at most one of 255 levels, in
    num_pixels pixels. different: by more, at psnr_db decibels; or what `which` names. psnr_db is None where
    nothing could be decoded, as of a stored clip that is gone.
    """

    verdict: Likeness
    which: tuple[str, ...] = ()
    num_pixels: int | None = None
    psnr_db: float | None = None


def compare(
    then: Record, now: Record, *, stored: Callable[[], bytes | None], again: Callable[[], bytes]
) -> Compared:
    """Return what differs between a record and its row rendered again.

    stored: reads the file of the record, if it is there. again: the file of `now`, of the same format. Both
    are called only where something differs. Frames of a format with loss are compared as both are decoded:
    the others are nowhere any more.
    """
    digests = compared_digests(then, now)
    which = tuple(name for name, there, here in digests if there != here and name != _FILE)
    if not which:
        return Compared(verdict="bit-exact")
    try:
        there = stored()
        if there is None:
            return _unseen(which)
        is_lossless = not (then.path or then.uri).endswith(tuple(f".{format}" for format in LOSSY))
        return _by_content(which, there, again(), is_lossless=is_lossless)
    except StoreError:  # no clip
        return _unseen(which)


def _unseen(which: tuple[str, ...]) -> Compared:
    return Compared(verdict="different", which=which)


def _by_content(which: tuple[str, ...], stored: bytes, again: bytes, *, is_lossless: bool) -> Compared:
    if "frames_sha256" not in which:
        return Compared(verdict="different", which=which, psnr_db=_psnr_of_sound(stored, again))
    there, here = decode(stored), decode(again)
    if there.shape != here.shape:
        return _unseen(which)
    num_pixels, max_level, squares = 0, 0, 0.0
    for one, other in zip(there, here, strict=True):  # frame by frame: differences are wider than pixels
        apart = np.abs(one.astype(np.int16) - other)  # (H, W, 3)
        num_pixels += int((apart.max(axis=-1) > 0).sum())
        max_level = max(max_level, int(apart.max()))
        squares += float(np.square(apart, dtype=np.int64).sum())
    is_one = which == ("frames_sha256",) and is_lossless and max_level <= 1
    return Compared(
        verdict="off by one" if is_one else "different",
        which=which,
        num_pixels=num_pixels if is_lossless else None,
        psnr_db=_psnr(squares / there.size, _PEAK),
    )


def _psnr_of_sound(stored: bytes, again: bytes) -> float | None:
    there, here = decode_audio(stored), decode_audio(again)
    if there is None or here is None or there[0].shape != here[0].shape:
        return None
    apart = there[0].astype(np.float64) - here[0]
    return _psnr(float(np.square(apart).mean()), _SOUND_PEAK)


def _psnr(mean_square: float, peak: float) -> float | None:
    """Return decibels; None where nothing differs, as in what is not stored."""
    return 10 * math.log10(peak**2 / mean_square) if mean_square else None
