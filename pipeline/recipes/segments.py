"""Clips made of several calls: how many frames they have, and frames and sound that stay in step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from framefleet.pipeline.errors import RecipeError, RenderError
from framefleet.pipeline.model.specs.ranges import too_large
from framefleet.pipeline.model.specs.refusal import Refused
from framefleet.pipeline.outputs.frames.audio import Audio
from framefleet.pipeline.outputs.frames.frames import Frames, to_frames
from framefleet.pipeline.outputs.frames.result import to_rendered
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What one call gave. audio: None where the pipeline gives none."""

    frames: Frames
    audio: Audio | None = None

    def from_second(self, fps: float) -> Segment:
        """Return the segment without its first frame, and what is heard with it."""
        if self.audio is None:
            return Segment(frames=self.frames[1:])
        rate = self.audio.sample_rate
        later = Audio(samples=self.audio.samples[:, round(rate / fps) :], sample_rate=rate)
        return Segment(frames=self.frames[1:], audio=later)


def to_segment(output: Any, pipe: Any) -> Segment:
    """Return frames and sound of a call. Raises RenderError for other outputs, which would be lost."""
    rendered = to_rendered(output, pipe)
    if others := [*rendered.extras.arrays, *rendered.extras.values]:
        raise RenderError(
            f"{type(pipe).__name__} returns {', '.join(others)} besides frames, which a clip made of several "
            "calls does not keep",
            "use the recipe generate, or one of your own",
        )
    return Segment(frames=to_frames(rendered), audio=rendered.audio)


def silent_frames(output: Any, pipe: Any) -> Frames:
    """Return the frames of a call. Raises RenderError where there is sound, which the recipe cannot keep."""
    segment = to_segment(output, pipe)
    if segment.audio is not None:
        raise RenderError(
            f"{type(pipe).__name__} makes sound, and this recipe leaves frames out between others",
            "use the recipe extend or generate",
        )
    return segment.frames


class FilmSound:
    """The sound of a film that is joined from segments, at the places of their frames; or none."""

    def __init__(self, first: Audio | None, *, num_frames: int, fps: float) -> None:
        """first: of the first segment, as all must be. num_frames: of the whole film."""
        self._kind = _kind(first)
        num_channels, self._rate = self._kind
        self._per_frame = self._rate / fps
        length = round(num_frames * self._per_frame)
        self._samples: npt.NDArray[np.float32] = np.zeros((num_channels, length), dtype=np.float32)

    def join(self, segment: Segment, length: int, *, overlap: int) -> None:
        """Put a segment's sound where its frames begin, `overlap` before the first `length` of the film.

        It fades in over the overlap, linearly, as what is there fades out. What has no room is cut off.
        """
        if _kind(segment.audio) != self._kind:
            raise RenderError(
                "segments of this row have different sound, or some have none", "use the recipe generate"
            )
        if segment.audio is None:
            return
        at, seen = (round(count * self._per_frame) for count in (length - overlap, length))
        room = self._samples[:, at : at + round(len(segment.frames) * self._per_frame)]
        part = np.zeros_like(room)
        heard = segment.audio.samples[:, : room.shape[1]]
        part[:, : heard.shape[1]] = heard
        weights = np.ones(room.shape[1], dtype=np.float32)
        fade = min(seen - at, len(weights))
        weights[:fade] = (np.arange(fade, dtype=np.float32) + 1) / (fade + 1)
        room[:] = room * (1 - weights) + part * weights

    def audio(self) -> Audio | None:
        return Audio(samples=self._samples, sample_rate=self._rate) if self._rate else None


def _kind(audio: Audio | None) -> tuple[int, int]:
    """Return channels and rate; none of both where there is no sound."""
    return (audio.num_channels, audio.sample_rate) if audio else (0, 0)
