"""Enlarges frames with networks that spandrel knows, and adds frames with FFmpeg's `minterpolate`.

Equal frames give equal results. `minterpolate` estimates the motion of blocks in both directions, and blends
overlapping blocks along it. It needs no weights, but is weaker than networks where things cover each other;
at a cut it repeats the frame before the cut.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import av.filter
import numpy as np

from framefleet.api.clips import Frames
from framefleet.api.errors import JobError, ModelError, OutOfMemory, RenderError, count_text
from framefleet.api.models import SAFETENSORS
from framefleet.plugins.post.section import UpscaleSection

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

_BUSY = threading.Lock()  # one clip at a time: the memory for a second one may not be there
_FIX = "use the file that the network's authors publish, for RGB pictures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upscaling:
    """A network by its weights. digest: SHA-256 that the file must have."""

    weights: str
    digest: str

    @classmethod
    def open(cls, section: UpscaleSection) -> Upscaling:
        """Return the network that a section names. Raises UserError for one that cannot be used."""
        if find_spec("spandrel") is None:
            raise JobError("post.upscale needs spandrel", "pip install 'framefleet[post]', on every machine")
        if not section.upscale.endswith(SAFETENSORS) and not section.allow_pickle:
            raise JobError(
                f"post.upscale: {section.upscale} may be a pickle, which can run code when it is opened",
                "use safetensors; or, if you trust its source, "
                f"write {{upscale: {section.upscale}, allow_pickle: true}}",
            )
        return cls(weights=section.upscale, digest=hashlib.sha256(_content(section.upscale)).hexdigest())

    @property
    def facts(self) -> dict[str, Any]:
        """What records say of it. The network must be loaded."""
        network = open_network(self, "cpu")
        names = {"upscale": network.scale, "architecture": network.architecture.name}
        return {**names, "weights": Path(self.weights).name, "sha256": self.digest}

    def __call__(self, frames: Frames, fps: float, *, device: str) -> tuple[Frames, float]:
        """frames: (T, H, W, 3) uint8. The network has one frame at a time, in float32. Raises OutOfMemory."""
        import torch

        with _BUSY, torch.inference_mode():
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # the bits of networks depend on it
            try:
                larger = self._larger(frames[0], device)
                every = np.empty((len(frames), *larger.shape), np.uint8)
                every[0] = larger
                for number in range(1, len(frames)):
                    every[number] = self._larger(frames[number], device)
            finally:
                torch.set_num_threads(threads)
        return every, fps

    def _larger(self, frame: Frames, device: str) -> Frames:
        import torch

        from framefleet.api.models import free_memory, is_out_of_memory

        for is_last in (False, True):
            try:
                pixels = torch.from_numpy(np.array(frame)).to(device).permute(2, 0, 1)[None] / 255
                large = open_network(self, device)(pixels)[0].clamp(0, 1).mul(255).round()
                return large.permute(1, 2, 0).to("cpu", torch.uint8).numpy()
            except Exception as error:  # on the device that renders, memory may be free a moment later
                if not is_out_of_memory(error):
                    raise
                if is_last:
                    height, width, _ = frame.shape
                    raise OutOfMemory(
                        f"post.upscale: a frame of {width}x{height} does not fit the memory of {device} that "
                        f"rendering leaves: {error}",
                        "use a smaller network, lower batching.max_rows, or set model.offload",
                    ) from None
            free_memory()
        raise AssertionError("it returned or raised")


@cache
def open_network(upscale: Upscaling, device: str) -> ImageModelDescriptor[Any]:
    """Return the network, kept for the process. Raises ModelError for a file that differs from the job's."""
    import safetensors.torch
    import torch
    from spandrel import ImageModelDescriptor, ModelLoader, canonicalize_state_dict

    path, content = upscale.weights, _content(upscale.weights)
    if hashlib.sha256(content).hexdigest() != upscale.digest:
        raise ModelError(
            f"post.upscale: {path} is not the file of the job", "put the same file there, on every machine"
        )
    try:
        if path.endswith(SAFETENSORS):
            tensors = safetensors.torch.load(content)
        else:
            tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        network = ModelLoader().load_from_state_dict(canonicalize_state_dict(tensors))
    except Exception as error:  # anybody's file: each architecture has errors of its own
        problem = f"{type(error).__name__}: {error}"[:300]
        raise ModelError(f"post.upscale: spandrel cannot load {path}: {problem}", _FIX) from error
    channels = (network.input_channels, network.output_channels)
    if not isinstance(network, ImageModelDescriptor) or channels != (3, 3):
        raise ModelError(
            f"post.upscale: {path} is {network.architecture.name}, which does not take and give RGB", _FIX
        )
    return network.eval().to(device)


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelError(
            f"post.upscale: {path} cannot be read: {error.strerror}",
            "use a file that is on this machine and every worker's",
        ) from error


_MARGIN = 3  # frames that the filter reads before the first and after the last one that it makes
MIN_SIDE = 32  # pixels: two of its blocks


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
        if num_frames < 2 or min(height, width) < MIN_SIDE:
            raise RenderError(
                f"post.interpolate cannot take {count_text(num_frames, 'frame')} of {width}x{height}",
                f"use it for clips of 2 frames of {MIN_SIDE}x{MIN_SIDE} or more; or upscale first",
            )
        every = np.repeat(frames, self.times, axis=0)
        num_between = 0
        for place, frame in _between(frames, self.times):
            if 0 <= place < len(every) - self.times and place % self.times:
                every[place] = frame
                num_between += 1
        assert num_between == (num_frames - 1) * (self.times - 1)
        return every, fps * self.times


def _between(frames: Frames, times: int) -> Iterator[tuple[int, Frames]]:
    """Yield what the filter makes, with the place among all frames; the first of them is 0."""
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

    def take() -> Iterator[tuple[int, Frames]]:
        while True:
            try:
                frame: Any = graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            place = round(frame.pts * frame.time_base * times) - _MARGIN * times
            yield place, frame.to_ndarray(format="rgb24")

    for number, picture in enumerate(picture for some in edges for picture in some):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1)
        graph.push(frame)
        yield from take()
    graph.push(None)
    yield from take()
