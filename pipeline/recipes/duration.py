"""From the seconds that a row asks for, and its rate, to the frames of a clip longer than the model's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.model.specs.ranges import too_large
from framefleet.pipeline.model.specs.refusal import Refused
from framefleet.pipeline.request import Request

MIN_S, MAX_S = 1, 60
MAX_FILM_FRAMES = 60 * 60  # a minute at 60 fps: 4 GB at 480 x 832


def num_frames_of(request: Request, duration_s: float) -> int:
    """Return `round(duration_s * fps)`. Raises RecipeError for a row without a rate, and too many frames."""
    if request.fps is None:
        raise RecipeError(
            f"{request.recipe} renders seconds, and the row has no fps", "set media.fps, or an fps column"
        )
    for _, refused in check_film(request.arguments, duration_s, request.fps):
        raise RecipeError(f"duration_s is {duration_s:g}, but {refused.reason}", refused.fix)
    return round(duration_s * request.fps)


def check_duration(duration_s: float) -> Iterator[tuple[str, Refused]]:
    if not MIN_S <= duration_s <= MAX_S:
        reason = f"it must be from {MIN_S} to {MAX_S} seconds"
        yield "duration_s", Refused(reason=reason, fix="split what is longer into rows")


def check_film(arguments: Mapping[str, Any], duration_s: float, fps: float) -> Iterator[tuple[str, Refused]]:
    """Yield seconds that are too many frames at this rate, or frames too many at this size."""
    num_frames = round(duration_s * fps)
    height, width = arguments.get("height") or 1, arguments.get("width") or 1
    reason = f"that is {num_frames:,} frames at {fps:g} fps"
    if num_frames > MAX_FILM_FRAMES:
        fix = "lower fps, or split the row"
        yield "duration_s", Refused(reason=f"{reason}, more than {MAX_FILM_FRAMES:,}", fix=fix)
    elif too_many := too_large(height, width, num_frames):
        fix = "use a smaller size, lower fps, or split the row"
        yield "duration_s", Refused(reason=f"{reason}: {too_many}", fix=fix)
