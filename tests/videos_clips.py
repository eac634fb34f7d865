"""From the words of a request to frames, synthetic or rendered by a model, and from frames to a file."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3)


def synthetic_frames(words: Mapping[str, Any], picture: bytes = b"") -> Frames:
    """Return waves that differ for any other words (but fps) or picture. words: of a call."""
    content = json.dumps({name: value for name, value in words.items() if name != "fps"}, sort_keys=True)
    digest = hashlib.sha256(content.encode() + picture).digest()
    draw = np.random.default_rng(int.from_bytes(digest[:8])).uniform(-1, 1, (3, 4))
    shape = (words.get("num_frames", 8), words.get("height", 48), words.get("width", 64))
    t, y, x = np.ogrid[tuple(map(slice, shape))]
    colors = [127.5 + 127.5 * np.sin(9 * a + b * t + c * y + d * x) for a, b, c, d in draw]
    return np.stack(colors, axis=-1).round().astype(np.uint8)


def is_spoilt(fault: str, one_of: int, *, prompt: str, seed: int | None) -> bool:
    """Whether this clip is the one in `one_of` that has the fault."""
    digest = hashlib.sha256(f"{fault} {seed} {prompt}".encode()).digest()
    return int.from_bytes(digest[:4]) % one_of == 0


class Model:
    """A diffusers pipeline, called as in a script of ten lines."""

    def __init__(self, folder: Path) -> None:
        import diffusers
        import torch

        self._generator = torch.Generator
        self._pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
        for part in self._pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval()
        self._takes = inspect.signature(self._pipe.__call__).parameters

    def frames(self, words: Mapping[str, Any], picture: bytes) -> Frames:
        """Return the frames, rounded as diffusers rounds for PIL images."""
        arguments = {name: value for name, value in words.items() if name in self._takes}
        if picture:
            arguments["image"] = Image.open(io.BytesIO(picture)).convert("RGB")
        if "seed" in words:
            arguments["generator"] = self._generator("cpu").manual_seed(words["seed"])
        output = self._pipe(**arguments, output_type="np")
        pixels = output.frames[0] if hasattr(output, "frames") else output.images
        return (np.asarray(pixels) * 255).round().astype(np.uint8)


def video(frames: Frames, *, fps: float) -> bytes:
    """Return a lossless mp4."""
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as file:
        stream = file.add_stream(
            "libx264rgb", rate=Fraction(fps).limit_denominator(1001), options={"qp": "0"}
        )
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return content.getvalue()


def png(frame: Frames) -> bytes:
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "png")
    return content.getvalue()
