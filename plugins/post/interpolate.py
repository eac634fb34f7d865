"""In: frames. Out: the same frames, with others between them by FFmpeg's `minterpolate`.

It estimates the motion of blocks in both directions, and blends overlapping blocks along it. It needs no
weights, and is weaker than networks where things cover each other; at a cut it repeats the frame before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.outputs.frames.frames import Frames

_MARGIN = 3  # frames that the filter reads before the first and after the last one that it makes
_MIN_SIDE = 32  # pixels: two of its blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpolation:
    """times: as many frames per second. A clip lasts as long as before: its last frame is repeated."""

    times: int

    @property
    def facts(self) -> dict[str, Any]:
        return {"interpolate": self.times, "method": f"FFmpeg {av.ffmpeg_version_info} minterpolate"}

    def __call__(self, frames: Frames, fps: float, *, device: str) -> tuple[Frames, float]:
        """frames: (T, H, W, 3) uint8; those that were there stay as they are."""
        num_frames, height, width, _ = frames.shape
        if num_frames < 2 or min(height, width) < _MIN_SIDE:
            raise RenderError(
                f"post.interpolate cannot be applied to {num_frames} frames of {width}x{height}",
                f"use it for clips of 2 frames of {_MIN_SIDE}x{_MIN_SIDE} or more; or upscale first",
            )
        every = np.repeat(frames, self.times, axis=0)
        made = _between(frames, self.times)
        for place in range(len(every) - self.times):
            if place % self.times:
                every[place] = made[place]
        return every, fps * self.times


def _between(frames: Frames, times: int) -> dict[int, Frames]:
    """Return what the filter makes, by the place among all frames; the first of them is 0."""
    graph = av.filter.Graph()
    _, height, width, _ = frames.shape
    source = graph.add_buffer(
        width=width, height=height, format=av.VideoFormat("rgb24"), time_base=Fraction(1)
    )
    steps = [
        graph.add("format", "yuv444p"),
        graph.add("minterpolate", f"fps={times}:mi_mode=mci"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(source, *steps).configure()
    edges = ([frames[0]] * _MARGIN, frames, [frames[-1]] * _MARGIN)
    made: dict[int, Frames] = {}

    def take() -> None:
        while True:
            try:
                frame: Any = graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            place = round(frame.pts * frame.time_base * times) - _MARGIN * times
            made[place] = frame.to_ndarray(format="rgb24")

    for number, picture in enumerate(picture for some in edges for picture in some):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1)
        graph.push(frame)
        take()
    graph.push(None)
    take()
    return made
