"""In: `loss.jsonl` of an output. Out: `loss.png` beside it: the losses, and the line that they follow."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.training.reports import read_losses

_PATH = "loss.png"
CURVE_SIZE = (960, 540)
LEFT, TOP, RIGHT, BOTTOM = 84, 28, 24, 52  # around the plot
_BACKGROUND, _GRID, _TEXT = (255, 255, 255), (226, 228, 233), (70, 76, 89)
RAW, SMOOTH = (183, 204, 240), (31, 87, 184)
FONT_SIZE = 15
# The line is a mean over this part of all steps to both sides, and at least over so many.
SMOOTHED_SHARE, SMOOTHED = 50, 3
SUPERSAMPLING = 2  # PIL's lines have no soft edges

Values = npt.NDArray[np.float64]


def write_loss_curve(store: Store) -> None:
    """Draw what there is; nothing where there is no step yet."""
    steps = read_losses(store)
    if steps:
        picture = io.BytesIO()
        loss_curve([step.loss for step in steps]).save(picture, format="PNG")
        store.write(_PATH, picture.getvalue())


def loss_curve(losses: Sequence[float]) -> Image.Image:
    """Return a picture of losses by step, on a logarithmic axis."""
    raw = np.maximum(np.asarray(losses, dtype=np.float64), 1e-12)
    smooth = _smoothed(raw)
    low, high = _range(raw)
    scale = SUPERSAMPLING
    image = Image.new("RGB", (CURVE_SIZE[0] * scale, CURVE_SIZE[1] * scale), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    _axes(draw, len(raw), low, high)
    for values, colour, width in ((raw, RAW, scale), (smooth, SMOOTH, 2 * scale)):
        along = np.linspace(0, 1, len(values))
        points = [_place(x, y, low, high) for x, y in zip(along.tolist(), values.tolist(), strict=True)]
        draw.line(points if len(points) > 1 else points * 2, fill=colour, width=width, joint="curve")
    return image.resize(CURVE_SIZE, Image.Resampling.LANCZOS)


def _smoothed(values: Values) -> Values:
    """Return the mean around each value, of so many to both sides."""
    half = max(len(values) // SMOOTHED_SHARE, SMOOTHED)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    smoothed: Values = (sums[last] - sums[first]) / (last - first)
    return smoothed


def _range(values: Values) -> tuple[float, float]:
    """Return the axis: a single odd step must not flatten all others."""
    low, high = np.quantile(values, 0.005), np.quantile(values, 0.995)
    margin = max((high / low) ** 0.05, 1.02)
    return float(low / margin), float(high * margin)


def _place(along: float, value: float, low: float, high: float) -> tuple[float, float]:
    """Return a point of the plot. along: 0 to 1."""
    up = math.log(min(max(value, low), high) / low) / math.log(high / low)
    width, height = CURVE_SIZE[0] - LEFT - RIGHT, CURVE_SIZE[1] - TOP - BOTTOM
    return ((LEFT + along * width) * SUPERSAMPLING, (TOP + (1 - up) * height) * SUPERSAMPLING)


def _axes(draw: ImageDraw.ImageDraw, num_steps: int, low: float, high: float) -> None:
    left, right = LEFT * SUPERSAMPLING, (CURVE_SIZE[0] - RIGHT) * SUPERSAMPLING
    bottom = (CURVE_SIZE[1] - BOTTOM) * SUPERSAMPLING
    for fifth in range(6):
        value = low * (high / low) ** (fifth / 5)
        _, y = _place(0, value, low, high)
        draw.line([(left, y), (right, y)], fill=_GRID, width=SUPERSAMPLING)
        _label(draw, (left - 8 * SUPERSAMPLING, y), f"{value:.3g}", "rm")
        x, _ = _place(fifth / 5, low, low, high)
        _label(draw, (x, bottom + 8 * SUPERSAMPLING), f"{round(fifth / 5 * num_steps):,}", "mt")
    _label(draw, (left, 4 * SUPERSAMPLING), "loss", "lt")
    _label(draw, (right, CURVE_SIZE[1] * SUPERSAMPLING - 6), "steps", "rb")


def _label(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, anchor: str) -> None:
    font = ImageFont.load_default(FONT_SIZE * SUPERSAMPLING)  # it has all that is said here
    draw.text(at, text, fill=_TEXT, font=font, anchor=anchor)
