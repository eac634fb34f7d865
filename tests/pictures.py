"""Small pictures and clips for rows that start from one: files beside a table, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from framefleet.pipeline.frames import Frames
from framefleet.pipeline.media import Media, encode

# Not the size that is rendered, so that each row has its own resized; even, as lossless video wants it.
SIZES = ((24, 20), (16, 16), (18, 32))


def write_pictures(folder: Path) -> list[str]:
    """Write one picture of each size; return their paths relative to `folder`."""
    return [_write(folder, f"picture-{i}.png", _noise(1, i)) for i in range(len(SIZES))]


def write_clips(folder: Path, *, num_frames: int) -> list[str]:
    """Write one lossless clip of each size; return their paths relative to `folder`."""
    return [_write(folder, f"clip-{i}.mkv", _noise(num_frames, i)) for i in range(len(SIZES))]


def _noise(num_frames: int, number: int) -> Frames:
    height, width = SIZES[number]
    draw = np.random.default_rng(number)
    return draw.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def _write(folder: Path, name: str, frames: Frames) -> str:
    media = Media(format="png" if name.endswith("png") else "mkv")
    (folder / name).write_bytes(encode(frames, media=media, fps=8, metadata={}))
    return name
