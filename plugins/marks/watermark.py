"""Add watermarks with a row_id to frames and sound, and read them from any file.

A watermark is a `FrameMark`, a `SoundMark` or both. Those of other libraries are in adapters.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from framefleet.api.clips import Audio, Frames, Pictures
from framefleet.api.errors import RenderError
from framefleet.plugins.marks.payload import Bits, Reading, Samples, is_checked, payload_of, row_prefix
from framefleet.plugins.marks.settings import Watermark
from framefleet.plugins.marks.spread import SpreadFrames
from framefleet.plugins.marks.spread_sound import SpreadSound

if TYPE_CHECKING:
    import torch

MarkedPart = Literal["frames", "sound"]
_BUSY = threading.Lock()


class FrameMark(Protocol):
    """num_bits: of its payload. embed: marks uint8 frames (T, H, W, 3 or 4), always in the same way."""

    num_bits: int

    def embed(self, frames: Frames, bits: Bits, *, device: str) -> Frames: ...

    def read(self, frames: Sequence[Frames], *, is_quick: bool) -> Iterator[Reading]:
        """Yield possible payloads of frames (H, W, 3) of one size, the most likely first."""


class SoundMark(Protocol):
    num_bits: int

    def embed(self, samples: Samples, sample_rate: int, bits: Bits, *, device: str) -> Samples: ...

    def read(self, samples: Samples, sample_rate: int) -> Iterator[Reading]: ...


@dataclass(frozen=True, slots=True)
class FoundWatermark:
    name: str
    part: MarkedPart
    prefix: str  # first hex digits of the row_id
    is_checked: bool = True  # whether it has a checksum; short watermarks have none
    scale: float | None = None  # size of the pictures relative to the clip, if known


@cache
def open_watermark(watermark: Watermark) -> tuple[FrameMark | None, SoundMark | None]:
    """Return the mark for frames and the mark for sound. Cached for the process.

    Raises JobError if its library is not installed, ModelError if the weights are not those of the job.
    """
    if watermark.name == "spread":
        return SpreadFrames(), SpreadSound()
    from framefleet.plugins.marks import adapters  # imports their libraries

    if watermark.name == "audioseal":
        return None, adapters.AudioSeal(watermark)
    return (adapters.VideoSeal if watermark.name == "videoseal" else adapters.TrustMark)(watermark), None


def mark_frames(
    frames: Pictures, watermarks: Iterable[Watermark], row_id: str, *, device: str = "cpu"
) -> Pictures:
    """Return frames with the watermarks for frames; deterministic. device: of the model."""
    for watermark in watermarks:
        mark, _ = open_watermark(watermark)
        if mark is None:
            continue
        if frames.dtype != np.uint8:
            raise RenderError(
                f"the frames are in [{frames.min():.3g}, {frames.max():.3g}], not [0, 1], which is all that "
                f"{watermark.name} marks",
                "leave marks.watermark out for HDR",
            )
        bits = payload_of(row_id, mark.num_bits)
        with _aside(device):
            frames = mark.embed(frames.astype(np.uint8, copy=False), bits, device=device)
    return frames


def mark_sound(audio: Audio, watermarks: Iterable[Watermark], row_id: str, *, device: str = "cpu") -> Audio:
    for watermark in watermarks:
        _, mark = open_watermark(watermark)
        if mark is not None:
            bits = payload_of(row_id, mark.num_bits)
            with _aside(device):
                samples = mark.embed(audio.samples, audio.sample_rate, bits, device=device)
            audio = replace(audio, samples=samples)
    return audio


def watermarks_in(
    frames: Sequence[Frames], audio: Audio | None, watermarks: Iterable[Watermark], *, is_quick: bool = False
) -> Iterator[FoundWatermark]:
    """Yield the watermarks that are found. frames: (H, W, 3) each.

    is_quick: only try the frames' own size.
    """
    for watermark in watermarks:
        of_frames, of_sound = open_watermark(watermark)
        if of_frames and frames:
            yield from _first(watermark.name, "frames", of_frames.read(frames, is_quick=is_quick))
        if of_sound and audio:
            yield from _first(watermark.name, "sound", of_sound.read(audio.samples, audio.sample_rate))


def _first(name: str, part: MarkedPart, readings: Iterator[Reading]) -> list[FoundWatermark]:
    """Return the first valid payload, if there is one."""
    with _aside("cpu"):
        for reading in readings:
            if prefix := row_prefix(reading.soft):
                is_sure = is_checked(len(reading.soft))
                return [FoundWatermark(name, part, prefix, is_checked=is_sure, scale=reading.scale)]
    return []


@contextmanager
def _aside(device: str) -> Iterator[None]:
    """Compute without gradients, with one CPU thread or in a separate GPU stream.

    Results of networks depend on the number of threads, and the GPU renders other rows meanwhile. One clip at
    a time, since networks are moved, and new threads would inherit the number of threads.
    """
    import torch

    with _BUSY, torch.no_grad():
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            if device.startswith("cuda"):
                with torch.cuda.stream(stream := _stream(device)):
                    yield
                    stream.synchronize()
            else:
                yield
        finally:
            torch.set_num_threads(threads)


@cache
def _stream(device: str) -> torch.cuda.Stream:
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
