"""Small pictures and clips to start from, the same every time: opened, or as files beside a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media

# (height, width): not always what is rendered, so that each row has its own resized.
SIZES = ((24, 20), (16, 16), (18, 24))


def picture(number: int) -> Image.Image:
    return clip(number, num_frames=1)[0]


def clip(number: int, *, num_frames: int) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in _noise(number, num_frames)]


def write_starts(folder: Path, *, num_frames: int, scale: int = 1) -> list[str]:
    """Write one file of each size, PNGs or lossless clips; return their paths relative to `folder`.

    scale: times as high and wide, for pipelines that take no smaller ones.
    """
    media = Media(format="png" if num_frames == 1 else "mkv")
    names = []
    for number in range(len(SIZES)):
        name = f"{'picture' if num_frames == 1 else 'clip'}-{number}{media.suffix}"
        content = encode(_noise(number, num_frames, scale), media=media, fps=8, metadata={})
        (folder / name).write_bytes(content)
        names.append(name)
    return names


def _noise(number: int, num_frames: int, scale: int = 1) -> Frames:
    height, width = (scale * side for side in SIZES[number])
    draw = np.random.default_rng(number)
    return draw.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
