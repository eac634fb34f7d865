"""Nothing in. Out: scenes, each what one clip shows, and captions that say so in English and in Chinese.

A scene is a shape of a colour that moves on a plain background.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from random import Random

from framefleet.pipeline.errors import JobError
from framefleet.plugins.demo.prepare import Size
from framefleet.plugins.demo.vocabulary import (
    CHINESE_COLORS,
    CHINESE_MOTIONS,
    CHINESE_SENTENCES,
    CHINESE_SHAPES,
    COLORS,
    ENGLISH_MOTIONS,
    ENGLISH_SENTENCES,
    ENGLISH_SHAPES,
    MOTIONS,
    SHAPES,
)

LANGUAGES = ("en", "zh")
SIZE = Size(9, 64, 64)
_MIN_SIDE, _MAX_SIDE = 32, 1024  # below, a star is a ball
# Can be drawn, named and measured, but no dataset has them unless asked: what fine-tuning can teach.
NEW_SHAPES = ("cross",)
NEW_COLORS = ("pink",)

HELD_OUT_SHARE = 10  # one in this many


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


def captions(scene: Scene, *, seed: int) -> dict[str, str]:
    """Return the scene in both languages, at most 63 bytes of UTF-8 each; wordings are drawn from `seed`.

    Some begin with a capital or end with a full stop, as people write them.
    """
    random = Random(f"captions {seed}")
    english = random.choice(ENGLISH_SENTENCES).format(
        color=scene.color,
        shape=random.choice(ENGLISH_SHAPES[scene.shape]),
        background=scene.background,
        motion=random.choice(ENGLISH_MOTIONS[scene.motion]),
    )
    chinese = random.choice(CHINESE_SENTENCES).format(
        color=CHINESE_COLORS[scene.color],
        shape=random.choice(CHINESE_SHAPES[scene.shape]),
        background=CHINESE_COLORS[scene.background],
        motion=random.choice(CHINESE_MOTIONS[scene.motion]),
    )
    sentence = random.random() < 0.2
    if sentence:
        english, chinese = f"{english[0].upper()}{english[1:]}.", f"{chinese}。"
    return {"en": english, "zh": chinese}


def check_size(size: Size) -> None:
    """Raise JobError for what is not drawn."""
    if size.num_frames < 1:
        raise JobError(f"size {size}: {size.num_frames} frames", "use 1 or more")
    for side in (size.height, size.width):
        if not _MIN_SIDE <= side <= _MAX_SIDE:
            raise JobError(f"size {size}: a side of {side}", f"use {_MIN_SIDE} to {_MAX_SIDE} pixels")
