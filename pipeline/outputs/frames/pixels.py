"""In: frames as a recipe returns them. Out: uint8 frames and their digest, made while others render.

One thread of the process does it, in the order of the clips: floats, four times as large, do not pile up.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property, partial
from typing import Any, Self

import numpy as np

from framefleet.pipeline.outputs.frames.frames import Pictures, frames_sha256, to_pictures
from framefleet.pipeline.outputs.frames.late_frames import LateFrames, is_late


class Pixels:
    """The frames of one clip, perhaps on their way."""

    def __init__(self, frames: Future[Pictures]) -> None:
        self._frames = frames

    @classmethod
    def of(cls, frames: Pictures) -> Self:
        """Return those of frames that are there."""
        made: Future[Pictures] = Future()
        made.set_result(frames)
        return cls(made)

    @property
    def frames(self) -> Pictures:
        """Wait for them. Raises what `to_pictures` does."""
        return self._frames.result()

    @cached_property
    def sha256(self) -> str:
        """Their digest, as `frames_sha256` has it; computed by who asks first."""
        return frames_sha256(self.frames)


def to_pixels(value: object, *, are_images: bool = False) -> Pixels:
    """Return the frames that `value` holds, as `to_pictures` does, but LateFrames later.

    Raises RenderError at once for all else that cannot be kept.
    """
    if not is_late(value):
        return Pixels.of(to_pictures(value, are_images=are_images))
    make = _launched(value) if value.is_on_gpu else partial(_rounded, value)
    return Pixels(_thread(os.getpid()).submit(make))


@cache
def _thread(pid: int) -> ThreadPoolExecutor:
    """Return the process's own: a fork has what its parent had, but not the thread that does the work."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="pixels")


def _rounded(late: LateFrames) -> Pictures:
    frames = np.empty(late.size, np.uint8)
    at = 0
    for part in late.parts():
        pixels, are_in_range = _to_uint8(part)
        if not are_in_range:
            return to_pictures(late.array())
        frames[at : at + len(pixels)] = pixels.cpu().numpy()
        at += len(pixels)
    return frames


def _launched(late: LateFrames) -> Callable[[], Pictures]:
    """Start on the GPU without waiting for it; return what waits.

    The arithmetic has its place among the renderer's own work, as decoders may use their memory again; the
    copy runs in parallel with what comes after.
    """
    import torch

    pixels, in_range = zip(*map(_to_uint8, late.parts()), strict=True)
    made = torch.cat([*(part.flatten() for part in pixels), torch.stack(in_range).all()[None].byte()])
    copying = _copying(made.device)
    copying.wait_stream(torch.cuda.current_stream(made.device))
    with torch.cuda.stream(copying):
        host = torch.empty(made.shape, dtype=made.dtype, pin_memory=True)
        host.copy_(made, non_blocking=True)
        done = copying.record_event()
    made.record_stream(copying)  # its memory is not given to others before

    def wait() -> Pictures:
        done.synchronize()
        if not host[-1]:
            return to_pictures(late.array())
        return host[:-1].numpy().reshape(late.size).copy()  # pinned memory is for the next clip

    return wait


@cache
def _copying(device: Any) -> Any:
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _to_uint8(part: Any) -> tuple[Any, Any]:
    """Return floats (t, C, H, W) as uint8 (t, H, W, C), rounded as diffusers does, and whether it could be.

    diffusers multiplies and rounds in NumPy, in float32; so does this, wherever the tensor is.
    """
    import torch

    scaled = (part.float() * 255).round()
    low, high = scaled.aminmax()  # of a NaN both are NaN
    pixels = scaled.to(torch.uint8).permute(0, 2, 3, 1)
    return pixels, (low >= 0) & (high <= 255)
