"""What a job says about how clips are stored. Imports no codec."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.request import MAX_FPS, MIN_FPS

MediaFormat = Literal["mp4", "mkv", "png"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """How clips are stored: mp4 is H.264, mkv is lossless FFV1, png holds one frame.

    crf: H.264's quality, 0 (lossless) to 51. fps: None takes the row's or the model's native rate.
    """

    format: MediaFormat = "mp4"
    crf: int = 18
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.format not in get_args(MediaFormat):
            raise JobError(f"media.format is {self.format!r}", "use mp4, mkv (lossless) or png (images)")
        if type(self.crf) is not int or not 0 <= self.crf <= 51:
            raise JobError(f"media.crf is {self.crf!r}", "use a whole number from 0 (lossless) to 51, as 18")
        if self.fps is not None:
            exact_rate(self.fps)

    @property
    def suffix(self) -> str:
        return f".{self.format}"


def exact_rate(fps: float) -> Fraction:
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not MIN_FPS <= fps <= MAX_FPS:
        raise JobError(f"fps is {fps!r}", "use a number from 0.1 to 1000, such as 16 or 23.976")
    return Fraction(fps).limit_denominator(1001)  # 1001: the denominator of the NTSC rates
