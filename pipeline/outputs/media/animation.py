"""Frames to the bytes of an animated webp or gif, always the same for the same frames; and back."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.outputs.frames.frames import Frames, Pictures
from framefleet.pipeline.outputs.media.frame_zip import text_tags
from framefleet.pipeline.outputs.media.media_settings import Media, check_pace, check_pixels

GIF_SIGNATURE = b"GIF89a"
_KINDS = ["WEBP", "GIF"]
_DESCRIPTION = 0x010E  # of Exif
_COUNT = "num_frames"  # our tag besides those that are given
_UNIT_MS = {"webp": 1, "gif": 10}  # what a frame's time is counted in
_SAMPLED = 1 << 18  # pixels of all frames, from which the colours of a gif are chosen


def is_webp(media_bytes: bytes) -> bool:
    return media_bytes.startswith(b"RIFF") and media_bytes[8:12] == b"WEBP"


def encode_animation(
    frames: Pictures, *, media: Media, rate: Fraction, tags: Mapping[str, str], packet: bytes = b""
) -> bytes:
    """Return the file's bytes: it plays again and again. packet: of XMP, in webp.

    webp: with alpha, where what is not seen at all has no colour; at crf 0 lossless, else quality 100 - crf.
    gif: 256 colours for all frames together, dithered. Raises RenderError for what the format does not hold.
    """
    check_pace(float(rate), media.format, RenderError)
    said = json.dumps({**tags, _COUNT: str(len(frames))}, sort_keys=True)  # ASCII: Exif has no other text
    images, options = (_gif if media.format == "gif" else _webp)(frames, media, said)
    options |= {"xmp": packet} if packet else {}
    buffer = io.BytesIO()
    try:
        images[0].save(
            buffer,
            media.format,
            save_all=True,
            append_images=images[1:],
            duration=_times(len(frames), rate, _UNIT_MS[media.format]),
            loop=0,
            **options,
        )
    except (OSError, ValueError) as error:  # sizes beyond 16,383 pixels
        raise RenderError(
            f"{len(frames)} frames of {frames.shape[2]}x{frames.shape[1]} could not be written as "
            f"{media.format}: {error}",
            "use a smaller size, or another media.format",
        ) from error
    return buffer.getvalue()


def decode_animation(media_bytes: bytes) -> Frames:
    """Return its frames as they are shown: (T, H, W, 3), or 4 with alpha."""
    with Image.open(io.BytesIO(media_bytes), formats=_KINDS) as image:
        count = int(_said(image)[_COUNT])
        check_pixels(image.width, image.height, max(count, getattr(image, "n_frames", 1)))
        mode = "RGBA" if image.mode == "RGBA" and image.format == "WEBP" else "RGB"
        shown = [
            (np.asarray(frame.convert(mode)), frame.info.get("duration", 0))
            for frame in ImageSequence.Iterator(image)
        ]
    # Equal frames in a row are one that is shown longer.
    length = sum(duration for _, duration in shown) or 1
    repeats = [max(1, round(duration * count / length)) for _, duration in shown]
    if sum(repeats) != count:
        raise ValueError(f"it shows {sum(repeats)} frames of {count}")
    return np.repeat(np.stack([frame for frame, _ in shown]), repeats, axis=0)


def read_tags_of_animation(media_bytes: bytes) -> dict[str, str]:
    with Image.open(io.BytesIO(media_bytes), formats=_KINDS) as image:
        check_pixels(image.width, image.height, 1)
        return {key: value for key, value in _said(image).items() if key != _COUNT}


def _said(image: Image.Image) -> dict[str, str]:
    return text_tags(image.info["comment"] if image.format == "GIF" else image.getexif()[_DESCRIPTION])


def _gif(frames: Pictures, media: Media, said: str) -> tuple[list[Image.Image], dict[str, Any]]:
    palette, dither = _palette(frames), Image.Dither.FLOYDSTEINBERG
    images = [Image.fromarray(frame).quantize(palette=palette, dither=dither) for frame in frames]
    return images, {"comment": said.encode(), "optimize": False}


def _webp(frames: Pictures, media: Media, said: str) -> tuple[list[Image.Image], dict[str, Any]]:
    exif = Image.Exif()
    exif[_DESCRIPTION] = said
    quality = {"quality": 100 - media.quality} if media.quality else {"lossless": True, "exact": True}
    return [Image.fromarray(frame) for frame in frames], {"exif": exif, "method": 4, **quality}


def _palette(frames: Pictures) -> Image.Image:
    """Return an image that has the 256 colours which serve all frames best."""
    pixels = frames.reshape(-1, 3)
    some = pixels[:: max(1, len(pixels) // _SAMPLED)]
    return Image.fromarray(some[None]).quantize(256, Image.Quantize.MEDIANCUT)


def _times(num_frames: int, rate: Fraction, unit_ms: int) -> list[int]:
    """Return for how many milliseconds each frame is shown; rounded so that none drifts from its time."""
    ends = [round(1000 * index / rate / unit_ms) * unit_ms for index in range(num_frames + 1)]
    return [end - start for start, end in pairwise(ends)]
