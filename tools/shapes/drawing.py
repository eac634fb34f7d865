"""In: a scene, a seed and a size. Out: the frames of its clip, always the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, hypot, pi, sin
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framefleet.pipeline.outputs.frames.frames import Frames
from tools.shapes.scenes import Scene

Floats = NDArray[np.floating[Any]]

PALETTE = {
    "red": (225, 35, 35),
    "green": (30, 160, 60),
    "blue": (35, 60, 220),
    "yellow": (250, 225, 40),
    "cyan": (50, 215, 230),
    "purple": (170, 40, 190),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
    "pink": (255, 130, 190),
}
_MARGIN = 0.03  # of the shorter side, between the object and the frame's edge


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """Where the object is in every frame, in shorter sides of the frame, from its upper left corner."""

    x: Floats  # (T,), as the others
    y: Floats
    radius: Floats


def draw(scene: Scene, *, seed: int, num_frames: int = 9, height: int = 64, width: int = 64) -> Frames:
    """Return uint8 RGB (T, H, W, 3) with smooth edges; the same motion takes the whole clip at any length."""
    side = min(height, width)
    track = track_of(scene.motion, seed=seed, num_frames=num_frames, height=height / side, width=width / side)
    rows, columns = (np.arange(length, dtype=np.float32) + 0.5 for length in (height, width))
    radius = (track.radius * side)[:, None, None]  # (T, 1, 1)
    x = (columns - (track.x * side)[:, None])[:, None, :] / radius  # (T, 1, W)
    y = (rows - (track.y * side)[:, None])[:, :, None] / radius  # (T, H, 1)
    covered = np.clip(0.5 - OUTLINES[scene.shape](x, y) * radius, 0, 1)  # (T, H, W)
    color, background = (np.array(PALETTE[name], np.float32) for name in (scene.color, scene.background))
    mixed: Floats = np.multiply.outer(covered, color - background) + (background + 0.5)
    return mixed.astype(np.uint8)


def track_of(motion: str, *, seed: int, num_frames: int, height: float = 1.0, width: float = 1.0) -> Track:
    """Return the object's way, drawn from `seed`: start, size and speed vary, it stays within the frame."""
    random = Random(f"track {seed}")
    time = np.linspace(0, 1, num_frames, dtype=np.float32)
    small, large = random.uniform(0.18, 0.23), random.uniform(0.29, 0.35)
    travel, factor = random.uniform(0.34, 0.46), random.uniform(1.9, 2.2)
    growth = large / factor * (1 + (factor - 1) * time)
    radius = {"grow": growth, "shrink": growth[::-1]}.get(motion, small + 0 * time)
    right = {"right": time, "left": -time}.get(motion, 0 * time) * travel
    down = {"down": time, "up": -time, "bounce": bounce(time)}.get(motion, 0 * time) * travel
    margin = float(radius.max()) + _MARGIN
    return Track(
        x=_within(right, margin, width, random), y=_within(down, margin, height, random), radius=radius
    )


def bounce(time: Floats) -> Floats:
    """Return how far down an object is that falls from 0 to 1 and comes back: a parabola, twice."""
    return (1 - np.abs(2 * time - 1)) ** 2  # slow at the top, at once back from the floor


def _within(way: Floats, margin: float, length: float, random: Random) -> Floats:
    """Return `way` moved by a random amount that leaves it `margin` away from both ends of `length`."""
    first, last = margin - float(way.min()), length - margin - float(way.max())
    return way + np.float32(random.uniform(first, last))


# An outline takes coordinates in radii (right, down) and returns how far outside of the shape they are.


def _ball(x: Floats, y: Floats) -> Floats:
    distance: Floats = np.sqrt(x * x + y * y)
    return distance - np.float32(1)


def _square(x: Floats, y: Floats) -> Floats:
    return np.maximum(np.abs(x), np.abs(y)).astype(np.float32) - np.float32(0.88)


def _triangle(x: Floats, y: Floats) -> Floats:
    """Pointing up: base 2, height 1.8."""
    side: Floats = (np.abs(x) * 1.8 - (y + 0.9)) / hypot(1.8, 1)
    return np.maximum(side, y - 0.9)


def _star(x: Floats, y: Floats) -> Floats:
    """Five points, one of them up; the inner corners at 0.45 of the radius."""
    sector = 2 * pi / 5
    angle = np.abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)  # from the nearest point
    across, along = 0.45 * sin(sector / 2), 1 - 0.45 * cos(sector / 2)  # of the edge from point to corner
    distance = np.sqrt(x * x + y * y)
    outside = (distance * np.cos(angle) - 1) * across + distance * np.sin(angle) * along
    return (outside / hypot(across, along)).astype(np.float32)


def _ring(x: Floats, y: Floats) -> Floats:
    from_middle: Floats = np.abs(_ball(x, y) + np.float32(0.23))
    return from_middle - np.float32(0.23)


def _cross(x: Floats, y: Floats) -> Floats:
    across, along = np.abs(x), np.abs(y)
    reach, arm = np.maximum(across, along), np.minimum(across, along)
    return np.maximum(reach - np.float32(1), arm - np.float32(0.33)).astype(np.float32)


OUTLINES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "ball": _ball,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
}
