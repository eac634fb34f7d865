"""How long and how large a clip is, written as 9x64x64: frames, height, width."""

from __future__ import annotations

from typing import NamedTuple

from framefleet.pipeline.errors import JobError

_MIN_SIDE, _MAX_SIDE = 32, 1024  # below, a star is a ball


class Size(NamedTuple):
    """Of a clip, in frames and pixels."""

    num_frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.num_frames}x{self.height}x{self.width}"


SIZE = Size(9, 64, 64)


def read_size(text: str) -> Size:
    """Return what "9x64x64" stands for. Raises JobError for what is no size."""
    numbers = text.split("x")
    if len(numbers) != len(Size._fields) or not all(number.isdecimal() for number in numbers):
        raise JobError(f"size {text!r} is not frames, height and width", "write it as 9x64x64")
    return Size(*map(int, numbers))


def check_size(size: Size) -> None:
    """Raise JobError for what is not drawn."""
    if size.num_frames < 1:
        raise JobError(f"size {size}: {size.num_frames} frames", "use 1 or more")
    for side in (size.height, size.width):
        if not _MIN_SIDE <= side <= _MAX_SIDE:
            raise JobError(f"size {size}: a side of {side}", f"use {_MIN_SIDE} to {_MAX_SIDE} pixels")
