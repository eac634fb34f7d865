"""Small images and videos in many formats, as bytes."""

from __future__ import annotations

import functools
import hashlib
import io
from typing import Any

import av
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64


def picture(mode: str = "RGB", width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> Image.Image:
    """Return noise, which no codec can make much smaller: cutting a file then cuts its pixels."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(noise, "RGBA").convert(mode)


def image_file(format: str = "png", mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture(mode).save(buffer, format=format, **options)
    return buffer.getvalue()


@functools.cache  # another encoding may have other bytes
def video_file(
    container: str = "mp4",
    codec: str = "libx264",
    pixels: str = "yuv420p",
    *,
    num_frames: int = 6,
    **options: str,
) -> bytes:
    """Return frames of noise, the first with a white top left quarter. options: the container's."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=8)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        for number in range(num_frames):
            frame = np.asarray(picture(seed=number)) // 2
            if number == 0:
                frame[: HEIGHT // 2, : WIDTH // 2] = 255
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return buffer.getvalue()


def turned(mp4: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """Return the video with another display matrix in its track header, as phones write it."""
    a, b, c, d = (value.to_bytes(4, "big", signed=True) for value in (n << 16 for n in matrix))
    zero, one = bytes(4), (1 << 30).to_bytes(4, "big")
    start = mp4.index(b"tkhd") + 4 + 40  # ISO/IEC 14496-12, section 8.3.2, version 0
    return mp4[:start] + a + b + zero + c + d + zero + zero + zero + one + mp4[start + 36 :]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
