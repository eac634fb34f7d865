"""From a row's arguments to whether its size is far from those that the model was trained at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefleet.pipeline.model.specs.geometry import FRAME_PARAMETERS
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.shape import SHAPE_ORDER, shape_text

# Models render twice their native sides well enough, or half of them; beyond, they repeat and tear.
FAR = 4


def far_from_native(spec: PipelineSpec, arguments: Mapping[str, Any]) -> str | None:
    """Return what is unusual about a size, with the model's own; None where nothing is, as far as known."""
    native, asked = _size(spec.defaults()), _size(arguments)
    pixels = _ratio(_area(asked), _area(native))
    frames = 1.0 if asked[0] == 1 else _ratio(asked[0], native[0])  # a video model may render pictures
    if 1 / FAR <= pixels <= FAR and 1 / FAR <= frames <= FAR:
        return None
    what = "frames" if not 1 / FAR <= frames <= FAR else "pixels in each"
    ratio = frames if what == "frames" else pixels
    often = f"{ratio:.3g} times" if ratio > 1 else f"1/{1 / ratio:.3g} of"
    return (
        f"{shape_text(*asked)} is {often} the {what} of the model's own size, "
        f"{shape_text(*native)} ({SHAPE_ORDER}): clips may repeat, tear or be noise"
    )


def _size(arguments: Mapping[str, Any]) -> tuple[int | None, int | None, int | None]:
    numbers = [arguments.get(name) for name in ("height", "width")]
    frames = next((arguments[name] for name in FRAME_PARAMETERS if name in arguments), None)
    height, width = (number if isinstance(number, int) else None for number in numbers)
    return frames if isinstance(frames, int) else None, height, width


def _area(size: tuple[int | None, int | None, int | None]) -> int | None:
    return size[1] * size[2] if size[1] and size[2] else None


def _ratio(asked: int | None, native: int | None) -> float:
    """Return how many times as much it is; 1 where one of both is not known."""
    return asked / native if asked and native else 1.0
