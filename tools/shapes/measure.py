"""In: the frames of a clip. Out: which shape of which colour moves how on which background.

By plain image analysis. The background is the colour of the border, the object's colour the one furthest from
it; a pixel belongs to the object when it is nearer to that. Shapes are recognised by laying each outline,
moved and scaled to the object's centre and area, over all frames; motions by a fit of place and size over
time. What is not clear is None: an object that some frame lacks, a second colour, an outline that changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from framefleet.pipeline.outputs.frames.frames import Frames
from tools.shapes.drawing import OUTLINES, PALETTE, Floats, bounce

BORDER = 1 / 32  # of the shorter side: what drawn objects never reach
MAX_COLOR_DISTANCE = 80.0  # in RGB; the nearest two of the palette are 124 apart
MIN_CONTRAST = 60.0  # half of the least distance of an object from its background
MIN_PLAIN = 0.8  # share of the border that must have the background's colour
MAX_STRAY = 0.2  # pixels that are no mixture of the two colours, for each of the object's
MIN_AREA, MAX_AREA = 0.015, 0.6  # in squares of the shorter side; drawn objects have 0.02 to 0.38
MIN_OVERLAP = 0.75  # of outline and object; drawn ones have 0.88 or more, a square and a ball 0.84
MIN_ALIKE = 0.6  # share of the frames that it must fit best; small stars are near to balls
MIN_FRAMES = 5  # fewer are no motion
MIN_TRAVEL = 0.15  # shorter sides, in the whole clip; drawn objects go 0.34 or more
MIN_GROWTH = 0.33  # natural logarithm of the size's ratio, 1.4; drawn ones 1.9 or more
MAX_STILL = 0.5  # of these least amounts
MAX_SHARE = 0.5  # of the second clearest motion in the clearest, each in its least amounts
MAX_JUMPS = (0.08, 0.08, 0.16)  # away from the fit, in any frame: shorter sides; logarithm of the size
# What the fit finds: steadily, or there and back; of x, y and size; less or more.
WAYS = (
    (("left", "right"), ("up", "down"), ("shrink", "grow")),
    ((None, None), (None, "bounce"), (None, None)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a clip shows. None: nothing of the kind, or not clear what."""

    shape: str | None
    color: str | None
    background: str | None
    motion: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Object:
    """Where the object is, in pixels."""

    covered: Floats  # (T, H, W), 0 or 1
    area: Floats  # (T,)
    x: Floats  # (T,), of the centre of the area, as y
    y: Floats
    plain: bool  # whether there is no other colour


def measure(frames: Frames) -> Measured:
    """Return what is seen in uint8 RGB frames (T, H, W, 3) of any size."""
    pixels = frames.astype(np.float32)
    border = _border(pixels)
    background = np.median(border, axis=0)
    if np.mean(_distance(border, background) < MIN_CONTRAST) < MIN_PLAIN:
        return Measured(shape=None, color=None, background=None, motion=None)
    color = _object_color(pixels, background)
    found = None if color is None else _find(pixels, background, color)
    if color is None or found is None:
        return Measured(shape=None, color=None, background=_name_of(background), motion=None)
    return Measured(
        shape=_shape(found),
        color=_name_of(color) if found.plain else None,
        background=_name_of(background),
        motion=_motion(found),
    )


def _border(pixels: Floats) -> Floats:
    """Return the outermost pixels of all frames, (N, 3)."""
    width = max(1, round(min(pixels.shape[1:3]) * BORDER))
    sides = (pixels[:, :width], pixels[:, -width:], pixels[:, :, :width], pixels[:, :, -width:])
    return np.concatenate([side.reshape(-1, 3) for side in sides])


def _distance(pixels: Floats, color: Floats) -> Floats:
    difference = pixels - color
    return np.sqrt(np.einsum("...c,...c->...", difference, difference))


def _name_of(color: Floats) -> str | None:
    distances = {name: float(np.linalg.norm(color - np.array(value))) for name, value in PALETTE.items()}
    nearest = min(distances, key=distances.__getitem__)
    return nearest if distances[nearest] <= MAX_COLOR_DISTANCE else None


def _object_color(pixels: Floats, background: Floats) -> Floats | None:
    """Return the median of the pixels that are furthest from the background: edges are mixtures."""
    distance = _distance(pixels, background)
    other = distance > MIN_CONTRAST
    if not other.any():
        return None
    core = distance >= 0.8 * np.quantile(distance[other], 0.8)
    return np.median(pixels[core], axis=0).astype(np.float32)


def _find(pixels: Floats, background: Floats, color: Floats) -> _Object | None:
    """Return the object, None when a frame shows none."""
    way = color - background
    share = np.clip((pixels - background) @ (way / (way @ way)), 0, 1)  # (T, H, W)
    covered = (_smooth(share) > 0.5).astype(np.float32)
    area = covered.sum(axis=(1, 2))
    square = min(pixels.shape[1:3]) ** 2
    if area.min() < MIN_AREA * square or area.max() > MAX_AREA * square:
        return None
    stray = _distance(pixels, background + share[..., None] * way) > MAX_COLOR_DISTANCE
    rows, columns = (np.arange(length, dtype=np.float32) + 0.5 for length in covered.shape[1:])
    return _Object(
        covered=covered,
        area=area,
        x=covered.sum(axis=1) @ columns / area,
        y=covered.sum(axis=2) @ rows / area,
        plain=bool(stray.sum() <= MAX_STRAY * area.sum()),
    )


def _smooth(share: Floats) -> Floats:
    """Return each pixel blended with its neighbours: odd ones vanish, straight edges stay where they are."""
    padded = np.pad(share, ((0, 0), (1, 1), (1, 1)), mode="edge")
    down = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return (down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]) / 16


def _shape(found: _Object) -> str | None:
    overlaps = np.stack([_overlap(found, shape) for shape in OUTLINES])  # (outlines, T)
    best = overlaps.mean(axis=1).argmax()
    is_clear = overlaps[best].mean() >= MIN_OVERLAP
    is_same = np.mean(overlaps.argmax(axis=0) == best) >= MIN_ALIKE
    return tuple(OUTLINES)[best] if is_clear and is_same else None


def _overlap(found: _Object, shape: str) -> Floats:
    """Return each frame's intersection over union of the object with an outline of its area and centre."""
    area, right, down = _proportions(shape)
    radius = np.sqrt(found.area / area)[:, None, None]  # (T, 1, 1)
    rows, columns = (np.arange(length, dtype=np.float32) + 0.5 for length in found.covered.shape[1:])
    x = (columns[None, None, :] - found.x[:, None, None]) / radius + right
    y = (rows[None, :, None] - found.y[:, None, None]) / radius + down
    outline = np.clip(0.5 - OUTLINES[shape](x, y) * radius, 0, 1)
    both, either = np.minimum(outline, found.covered), np.maximum(outline, found.covered)
    return both.sum(axis=(1, 2)) / either.sum(axis=(1, 2))


@cache
def _proportions(shape: str) -> tuple[float, float, float]:
    """Return an outline's area in squared radii, and where the centre of the area is."""
    step = 0.01
    places = np.arange(-1.2, 1.2, step, dtype=np.float32) + np.float32(step / 2)
    inside = OUTLINES[shape](places[None, :], places[:, None]) < 0
    right, down = (float(np.mean(places[np.nonzero(inside)[axis]])) for axis in (1, 0))
    return float(inside.sum()) * step**2, right, down


def _motion(found: _Object) -> str | None:
    """Return the motion whose share of what happens is clearly the largest."""
    if len(found.area) < MIN_FRAMES:
        return None
    side = min(found.covered.shape[1:])
    time = np.linspace(0, 1, len(found.area))
    ways = np.stack([np.ones_like(time), time, bounce(time)], axis=1)  # (T, 3)
    seen = np.stack([found.x / side, found.y / side, np.log(found.area) / 2], axis=1)  # (T, 3)
    fit, *_ = np.linalg.lstsq(ways, seen, rcond=None)
    if np.any(np.abs(seen - ways @ fit) > MAX_JUMPS):
        return None
    amounts = fit[1:] / (MIN_TRAVEL, MIN_TRAVEL, MIN_GROWTH)  # steadily, there and back: of x, y, size
    second, first = np.sort(np.abs(amounts), axis=None)[-2:]
    if first < MAX_STILL:
        return "still"
    if first < 1 or second > MAX_SHARE * first:
        return None
    way, of = np.unravel_index(np.abs(amounts).argmax(), amounts.shape)
    return WAYS[way][of][int(amounts[way, of] > 0)]
