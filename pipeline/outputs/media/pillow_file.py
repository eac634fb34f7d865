"""Frames to the bytes of a png, or of an animated webp or gif, by Pillow; and back."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image, ImageSequence, PngImagePlugin

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.outputs.frames.frames import Frames, Pictures
from framefleet.pipeline.outputs.media.frame_zip import text_tags
from framefleet.pipeline.outputs.media.media_settings import Media, check_pace, check_pixels

PNG_SIGNATURE, GIF_SIGNATURE = b"\x89PNG\r\n\x1a\n", b"GIF89a"
XMP_TAG = "XML:com.adobe.xmp"  # an XMP packet, which png and webp have a place for
_DESCRIPTION = 0x010E  # of Exif
_COUNT = "num_frames"  # our tag besides those that are given
_UNIT_MS = {"webp": 1, "gif": 10}  # what a frame's time is counted in
_SAMPLED = 1 << 18  # pixels of all frames, from which the colours of a gif are chosen


def is_pillow_file(media_bytes: bytes) -> bool:
    is_webp = media_bytes.startswith(b"RIFF") and media_bytes[8:12] == b"WEBP"
    return is_webp or media_bytes.startswith((PNG_SIGNATURE, GIF_SIGNATURE))


def encode_png(frames: Pictures, tags: Mapping[str, str]) -> bytes:
    text = PngImagePlugin.PngInfo()
    for key, value in tags.items():
        text.add_itxt(key, value)
    buffer = io.BytesIO()
    Image.fromarray(frames[0]).save(buffer, format="PNG", pnginfo=text, compress_level=6)
    return buffer.getvalue()


def encode_animation(frames: Pictures, *, media: Media, rate: Fraction, tags: Mapping[str, str]) -> bytes:
    """Return the file's bytes: it plays again and again.

    webp: with alpha, where what is not seen at all has no colour; at crf 0 lossless, else quality 100 - crf.
    gif: 256 colours for all frames together, dithered. Raises RenderError for what the format does not hold.
    """
    check_pace(float(rate), media.format, RenderError)
    packet = tags.get(XMP_TAG, "").encode()
    tags = {key: value for key, value in tags.items() if key != XMP_TAG}
    text = json.dumps({**tags, _COUNT: str(len(frames))}, sort_keys=True)  # ASCII: Exif has no other text
    options: dict[str, Any] = {"xmp": packet} if packet else {}
    if media.format == "gif":
        pixels = frames.reshape(-1, 3)
        some = pixels[:: max(1, len(pixels) // _SAMPLED)]
        # An image that has the 256 colours which serve all frames best.
        palette = Image.fromarray(some[None]).quantize(256, Image.Quantize.MEDIANCUT)
        dither = Image.Dither.FLOYDSTEINBERG
        images = [Image.fromarray(frame).quantize(palette=palette, dither=dither) for frame in frames]
        options |= {"comment": text.encode(), "optimize": False}
    else:
        exif = Image.Exif()
        exif[_DESCRIPTION] = text
        quality = {"quality": 100 - media.quality} if media.quality else {"lossless": True, "exact": True}
        images = [Image.fromarray(frame) for frame in frames]
        options |= {"exif": exif, "method": 4, **quality}
    # How many milliseconds each frame is shown; rounded so that none drifts from its time.
    unit_ms = _UNIT_MS[media.format]
    ends = [round(1000 * index / rate / unit_ms) * unit_ms for index in range(len(frames) + 1)]
    durations = [end - start for start, end in pairwise(ends)]
    buffer = io.BytesIO()
    try:
        options |= {"append_images": images[1:], "duration": durations, "loop": 0}
        images[0].save(buffer, media.format, save_all=True, **options)
    except (OSError, ValueError) as error:  # sizes beyond 16,383 pixels
        raise RenderError(
            f"{len(frames)} frames of {frames.shape[2]}x{frames.shape[1]} could not be written as "
            f"{media.format}: {error}",
            "use a smaller size, or another media.format",
        ) from error
    return buffer.getvalue()


def decode_pillow(media_bytes: bytes) -> Frames:
    """Return the frames as they are shown: (T, H, W, 3), or 4 with alpha."""
    with _opened(media_bytes) as image:
        if image.format == "PNG":
            check_pixels(image.width, image.height, 1)
            return np.asarray(image)[None]
        count = int(_tags_of(image)[_COUNT])
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


def read_pillow_tags(media_bytes: bytes) -> dict[str, str]:
    with _opened(media_bytes) as image:
        check_pixels(image.width, image.height, 1)
        return {key: value for key, value in _tags_of(image).items() if key != _COUNT}


def _opened(media_bytes: bytes) -> Image.Image:
    return Image.open(io.BytesIO(media_bytes), formats=["PNG", "WEBP", "GIF"])


def _tags_of(image: Image.Image) -> dict[str, str]:
    if image.format == "PNG":
        image.load()
        return {str(key): str(value) for key, value in image.info.items() if isinstance(value, str)}
    return text_tags(image.info["comment"] if image.format == "GIF" else image.getexif()[_DESCRIPTION])
