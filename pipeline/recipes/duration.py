"""From the seconds that a row asks for, and its rate, to the frames of a clip longer than the model's own."""

from __future__ import annotations

from collections.abc import Iterator

from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.request import Request
from framefleet.pipeline.specs.check import Refused

MIN_S, MAX_S = 1, 60
MAX_FRAMES = 60 * 60  # a minute at 60 fps: 4 GB at 480 x 832


def num_frames_of(request: Request, duration_s: float) -> int:
    """Return `round(duration_s * fps)`. Raises RecipeError for a row without a rate, and too many frames."""
    if request.fps is None:
        raise RecipeError(
            f"{request.recipe} renders seconds, and the row has no fps", "set media.fps, or an fps column"
        )
    num_frames = round(duration_s * request.fps)
    if num_frames > MAX_FRAMES:
        raise RecipeError(
            f"{duration_s:g} s at {request.fps:g} fps are {num_frames:,} frames, more than {MAX_FRAMES:,}",
            "lower fps, or split the row",
        )
    return num_frames


def check_duration(duration_s: float) -> Iterator[tuple[str, Refused]]:
    if not MIN_S <= duration_s <= MAX_S:
        reason = f"it must be from {MIN_S} to {MAX_S} seconds"
        yield "duration_s", Refused(reason=reason, fix="split what is longer into rows")
