"""What calls of a pipeline give to a clip made of several: frames, and sound in step with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.outputs.frames.audio import Audio
from framefleet.pipeline.outputs.frames.frames import Frames, to_frames
from framefleet.pipeline.outputs.frames.result import to_rendered


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
