"""Nothing in. Out: scenes, each what one clip shows: a shape of a colour that moves on a plain background.

Also how long and how large a clip is, written as 9x64x64: frames, height, width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import NamedTuple

from framefleet.pipeline.errors import JobError

SHAPES = ("ball", "square", "triangle", "star", "ring")
COLORS = ("red", "green", "blue", "yellow", "cyan", "purple", "white", "black")  # RGB's corners: far apart
MOTIONS = ("left", "right", "up", "down", "bounce", "grow", "shrink", "still")

# Can be drawn, named and measured, but no dataset has them unless asked: what fine-tuning can teach.
NEW_SHAPES = ("cross",)
NEW_COLORS = ("pink",)

HELD_OUT_SHARE = 10  # one in this many
_MIN_SIDE, _MAX_SIDE = 32, 1024  # below, a star is a ball


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a clip shows. Where the object is, how large and how fast, is the seed's to choose."""

    shape: str
    color: str
    background: str
    motion: str

    @property
    def held_out(self) -> bool:
        """Whether this combination is kept for evaluation: no dataset has it, but each pair of its values."""
        words = f"{self.shape} {self.color} {self.background} {self.motion}"
        return hashlib.sha256(words.encode()).digest()[0] % HELD_OUT_SHARE == 0


def all_scenes(
    *, shapes: Sequence[str] = SHAPES, colors: Sequence[str] = COLORS, backgrounds: Sequence[str] = COLORS
) -> list[Scene]:
    """Return every combination, held out or not; object and background never share a colour."""
    return [
        Scene(shape=shape, color=color, background=background, motion=motion)
        for shape, color, background, motion in product(shapes, colors, backgrounds, MOTIONS)
        if color != background
    ]


def new_scenes() -> list[Scene]:
    """Return every combination with the new shape or the new colour, or both, on a known background."""
    scenes = all_scenes(shapes=SHAPES + NEW_SHAPES, colors=COLORS + NEW_COLORS)
    return [scene for scene in scenes if scene.shape in NEW_SHAPES or scene.color in NEW_COLORS]


def training_scenes(num_scenes: int, *, seed: int, among: Sequence[Scene] | None = None) -> list[Scene]:
    """Return scenes that are not held out, in an order drawn from `seed`; all come equally often (+- 1)."""
    return _dealt([scene for scene in among or all_scenes() if not scene.held_out], num_scenes, seed)


def held_out_scenes(num_scenes: int, *, seed: int, among: Sequence[Scene] | None = None) -> list[Scene]:
    """Return held-out scenes in an order drawn from `seed`; none comes twice before all came once."""
    return _dealt([scene for scene in among or all_scenes() if scene.held_out], num_scenes, seed)


def _dealt(scenes: list[Scene], num_scenes: int, seed: int) -> list[Scene]:
    random = Random(f"scenes {seed}")
    dealt: list[Scene] = []
    while len(dealt) < num_scenes:
        dealt += random.sample(scenes, len(scenes))
    return dealt[:num_scenes]


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
