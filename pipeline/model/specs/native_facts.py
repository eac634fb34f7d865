"""From what a pipeline states about itself to what it renders: its rate, lengths and sizes.

Modular pipelines state these as properties (`fps`, `max_duration`, `canvas_multiple`), which are read from
their source over the configs of a model. A preset adds only what no class says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from framefleet.pipeline.model.specs.constructor import Unknown
from framefleet.pipeline.request import MAX_FPS

# What pipelines call each fact, the usual name first.
_FPS = ("fps", "frame_rate")
_SIDES = ("canvas_multiple",)
_CHUNK, _CHUNK_REST = ("vae_frames_per_chunk",), ("vae_latents_per_chunk",)
_SHORTEST_S, _LONGEST_S = ("min_duration",), ("max_duration",)
_HEIGHT, _WIDTH, _FRAMES = ("default_height",), ("default_width",), ("default_num_frames",)
_MAX_S, _MAX_COUNT = 86_400.0, 1 << 14  # no model has a tenth of it


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeFacts:
    """What a class states; None where it states nothing.

    fps: frames per second. sides: what height and width are multiples of. frame_step, frame_rest: frames are
    `frame_step * k + frame_rest`. shortest_s, longest_s: of a clip, in seconds.
    """

    fps: float | None = None
    sides: int | None = None
    frame_step: int | None = None
    frame_rest: int | None = None
    shortest_s: float | None = None
    longest_s: float | None = None
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None

    def frames_between(self) -> tuple[int | None, int | None]:
        """Return the numbers of frames of the shortest and of the longest clip, as the step allows them."""
        step, rest, fps = self.frame_step or 1, self.frame_rest or 0, self.fps or math.nan
        least, most = (math.nan if s is None else s * fps for s in (self.shortest_s, self.longest_s))
        shortest = None if math.isnan(least) else math.ceil((least - rest) / step) * step + rest
        longest = None if math.isnan(most) else math.floor((most - rest) / step) * step + rest
        return shortest, longest


def native_facts(pipe: Any) -> NativeFacts:
    """Return what a pipeline states. pipe: as far as its source and configs tell (`constructed_pipeline`)."""
    step, rest = _count(pipe, _CHUNK), _count(pipe, _CHUNK_REST)
    has_step = step is not None and rest is not None and rest < step
    return NativeFacts(
        fps=_number(pipe, _FPS, MAX_FPS),
        sides=_count(pipe, _SIDES),
        frame_step=step if has_step else None,
        frame_rest=rest if has_step else None,
        shortest_s=_number(pipe, _SHORTEST_S, _MAX_S),
        longest_s=_number(pipe, _LONGEST_S, _MAX_S),
        height=_count(pipe, _HEIGHT),
        width=_count(pipe, _WIDTH),
        num_frames=_count(pipe, _FRAMES),
    )


def _number(pipe: Any, names: tuple[str, ...], most: float) -> float | None:
    for name in names:
        try:
            value = getattr(pipe, name)
        except (AttributeError, Unknown):
            continue
        if type(value) in (int, float) and 0 < value <= most:
            return float(value)
    return None


def _count(pipe: Any, names: tuple[str, ...]) -> int | None:
    value = _number(pipe, names, _MAX_COUNT)
    return int(value) if value is not None and value == int(value) else None
