"""From frames to the bytes of a png, or of an animated webp or gif, with Pillow; and back.

Also from frames, layers and sound to a zip with a file for each, always with the same bytes; and back.
"""

from __future__ import annotations

import codecs
import io
import json
import zipfile
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence, PngImagePlugin

from framefleet.pipeline.errors import RenderError, count_text
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.outputs.frames.frames import Frames, Pictures
from framefleet.pipeline.outputs.media.media_settings import (
    COMMENT,
    LARGEST_FRAME,
    ClipHeader,
    Media,
    check_pace,
    check_pixels,
)

ZIP_SIGNATURE = b"PK\x03\x04"
_TAGS, SOUND_FILE = "tags.json", "sound.flac"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can have
_EXR = {"compression": "zip16", "format": "float", "threads": "1"}  # 32-bit floats, compressed without loss
_PIXELS = {3: "gbrpf32le", 4: "gbrapf32le"}


def encode_zip(
    frames: Pictures, sound: bytes | None, *, kind: Literal["png", "exr"], tags: Mapping[str, str]
) -> bytes:
    """Return a zip of 0000.png or 0000.exr and so on, sound.flac and tags.json.

    frames: uint8 for png. In exr, 8-bit values are divided by 255, and floats stay as they are.
    """
    files = {}
    for index, frame in enumerate(frames):
        if kind == "png":
            png = io.BytesIO()
            Image.fromarray(frame).save(png, format="PNG", compress_level=6)
            files[f"{index:04}.png"] = png.getvalue()
        else:
            height, width, channels = frame.shape
            floats = frame.astype(np.float32) / np.float32(255 if frame.dtype == np.uint8 else 1)
            context = av.VideoCodecContext.create("exr", "w")
            context.width, context.height, context.pix_fmt = width, height, _PIXELS[channels]
            context.time_base, context.options = Fraction(1), _EXR
            packets = context.encode(av.VideoFrame.from_ndarray(floats, format=_PIXELS[channels]))
            files[f"{index:04}.exr"] = b"".join(map(bytes, [*packets, *context.encode(None)]))
    files |= {} if sound is None else {SOUND_FILE: sound}
    files[_TAGS] = json.dumps(tags, sort_keys=True, ensure_ascii=False).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # as made on Unix, on every system
            archive.writestr(entry, content)
    return buffer.getvalue()


def decode_zip(media_bytes: bytes) -> Pictures:
    files = _frame_files(_members(media_bytes))
    return np.stack([_decoded(name, content, len(files)) for name, content in files.items()])


def _frame_files(members: Mapping[str, bytes]) -> dict[str, bytes]:
    in_order = sorted(members, key=lambda name: (len(name), name))  # the 10,001st is 10000.png
    return {name: members[name] for name in in_order if name.endswith((".png", ".exr"))}


def _decoded(name: str, content: bytes, num_frames: int) -> npt.NDArray[Any]:
    """Return one frame of a zip."""
    if name.endswith(".png"):
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            check_pixels(image.width, image.height, num_frames)
            return np.asarray(image)
    context = av.VideoCodecContext.create("exr", "r")
    context.options = {"max_pixels": str(LARGEST_FRAME)}
    (frame,) = [*context.decode(av.Packet(content)), *context.decode(None)]
    check_pixels(frame.width, frame.height, 4 * num_frames)  # floats
    return frame.to_ndarray().astype(np.float32, copy=False)


def zip_header(media_bytes: bytes) -> ClipHeader:
    members = _members(media_bytes)
    files = _frame_files(members)
    name, content = next(iter(files.items()))
    height, width, _ = _decoded(name, content, len(files)).shape
    tags = text_tags(members.get(_TAGS) or b"{}")
    return ClipHeader(tags=tags, height=height, width=width, num_frames=len(files))


def read_zip_sound(media_bytes: bytes) -> bytes | None:
    """Return the sound.flac of a zip; None without one."""
    return _members(media_bytes).get(SOUND_FILE)


def read_zip_tags(media_bytes: bytes) -> dict[str, str]:
    return text_tags(_members(media_bytes).get(_TAGS) or b"{}")


def text_tags(text: str | bytes) -> dict[str, str]:
    """Return tags that were written as JSON. Raises ValueError for anything else."""
    tags = parse_json(text)
    if not isinstance(tags, dict):
        raise ValueError("its tags are not a mapping")
    return {str(key): str(value) for key, value in tags.items()}


def _members(media_bytes: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(media_bytes)) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("its files are compressed, unlike those that framefleet writes")  # or a bomb
        if sum(entry.file_size for entry in archive.infolist()) > len(media_bytes):
            raise ValueError("its files are larger than it is")  # many names for the same bytes
        return {name: archive.read(name) for name in archive.namelist()}


PNG_SIGNATURE, GIF_SIGNATURE, _JPEG_SIGNATURE = b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff"
XMP_TAG = "XML:com.adobe.xmp"  # an XMP packet, which png and webp have a place for
_DESCRIPTION, _EXIF_IFD, _USER_COMMENT = 0x010E, 0x8769, 0x9286  # of Exif
_EXIF_TEXTS = {_DESCRIPTION: "description", 0x010F: "make", 0x0110: "model"}
_UTF_16 = b"UNICODE\0"  # the beginning of a comment in Exif that is UTF-16
_PARAMETERS = "parameters"  # what readers of pngs call the comment
_COUNT = "num_frames"  # a tag that we add
_UNIT_MS = {"webp": 1, "gif": 10}  # what a frame's time is counted in
_SAMPLED = 1 << 18  # pixels of all frames, from which the colours of a gif are chosen


def is_pillow_file(media_bytes: bytes) -> bool:
    is_webp = media_bytes.startswith(b"RIFF") and media_bytes[8:12] == b"WEBP"
    return is_webp or media_bytes.startswith((PNG_SIGNATURE, GIF_SIGNATURE, _JPEG_SIGNATURE))


def encode_png(frames: Pictures, tags: Mapping[str, str]) -> bytes:
    text = PngImagePlugin.PngInfo()
    for key, value in tags.items():
        if key == COMMENT:
            text.add_text(_PARAMETERS, value)  # tEXt, which more tools read, where Latin-1 has its letters
        else:
            text.add_itxt(key, value)
    buffer = io.BytesIO()
    Image.fromarray(frames[0]).save(buffer, format="PNG", pnginfo=text, compress_level=6)
    return buffer.getvalue()


def encode_animation(frames: Pictures, *, media: Media, rate: Fraction, tags: Mapping[str, str]) -> bytes:
    """Return the file's bytes; it plays in a loop.

    webp: with alpha, and no colours in invisible pixels; lossless at crf 0, else of quality 100 - crf. gif:
    256 colours for all frames together, dithered. Raises RenderError for what the format cannot hold.
    """
    check_pace(float(rate), media.format, RenderError)
    packet = tags.get(XMP_TAG, "").encode()
    comment = tags.get(COMMENT) if media.format == "webp" else None
    tags = {key: value for key, value in tags.items() if key != XMP_TAG and value is not comment}
    text = json.dumps({**tags, _COUNT: str(len(frames))}, sort_keys=True)  # ASCII: Exif has no other text
    options: dict[str, Any] = {"xmp": packet} if packet else {}
    if media.format == "gif":
        pixels = frames.reshape(-1, 3)
        sample = pixels[:: max(1, len(pixels) // _SAMPLED)]
        # An image with the 256 colours that are best for all frames.
        palette = Image.fromarray(sample[None]).quantize(256, Image.Quantize.MEDIANCUT)
        dither = Image.Dither.FLOYDSTEINBERG
        images = [Image.fromarray(frame).quantize(palette=palette, dither=dither) for frame in frames]
        options |= {"comment": text.encode(), "optimize": False}
    else:
        exif = Image.Exif()
        exif[_DESCRIPTION] = text
        if comment is not None:
            exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _UTF_16 + comment.encode("utf-16-be")
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
    except (OSError, ValueError, RuntimeError, OverflowError) as error:
        why, change = str(error), "use a smaller size"  # sizes beyond 16,383 pixels, times beyond 655 s
        if isinstance(error, OverflowError):  # equal frames of a gif are one
            why, change = "a picture would be shown for more than 655 seconds", "raise media.fps"
        size = f"{frames.shape[2]}x{frames.shape[1]}"
        raise RenderError(
            f"{count_text(len(frames), 'frame')} of {size} could not be written as {media.format}: {why}",
            f"{change}, or use another media.format",
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
            (np.asarray(frame.convert(mode)), frame.info.get("duration") or 1)  # 0 for a single picture
            for frame in ImageSequence.Iterator(image)
        ]
    # Equal frames in a row are one that is shown longer.
    length = sum(duration for _, duration in shown)
    repeats = [max(1, round(duration * count / length)) for _, duration in shown]
    if sum(repeats) != count:
        raise ValueError(f"it shows {count_text(sum(repeats), 'frame')} of {count}")
    return np.repeat(np.stack([frame for frame, _ in shown]), repeats, axis=0)


def read_pillow_tags(media_bytes: bytes) -> dict[str, str]:
    with _opened(media_bytes) as image:
        check_pixels(image.width, image.height, 1)
        return {key: value for key, value in _tags_of(image).items() if key != _COUNT}


def pillow_header(media_bytes: bytes) -> ClipHeader:
    with _opened(media_bytes) as image:
        size = {"height": image.height, "width": image.width}
        check_pixels(image.width, image.height, 1)
        tags = _tags_of(image)
        num_frames = 1 if image.format == "PNG" else int(tags.pop(_COUNT))
        return ClipHeader(tags=tags, **size, num_frames=num_frames)


def _opened(media_bytes: bytes) -> Image.Image:
    return Image.open(io.BytesIO(media_bytes), formats=["PNG", "WEBP", "GIF", "JPEG"])


def _tags_of(image: Image.Image) -> dict[str, str]:
    """Return the texts in a picture, also in one that framefleet did not write."""
    if image.format == "GIF":
        text_of_gif = bytes(image.info.get(COMMENT) or b"")
        is_ours = text_of_gif.startswith(b"{")
        return text_tags(text_of_gif) if is_ours else {COMMENT: text_of_gif.decode("utf-8", "replace")}
    if image.format == "PNG" and not any(isinstance(value, str) for value in image.info.values()):
        image.load()  # they may come last
    tags = {str(key): value for key, value in image.info.items() if isinstance(value, str)}
    exif = image.getexif()
    tags |= {name: str(exif[key]) for key, name in _EXIF_TEXTS.items() if key in exif}
    comment = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    if (text := tags.pop(_PARAMETERS, None) or _exif_text(comment)) is not None:
        tags[COMMENT] = text
    if f'"{_COUNT}"' in tags.get("description", ""):
        tags |= text_tags(tags.pop("description"))
    return tags


def _exif_text(comment: object) -> str | None:
    """Return a comment of Exif: its first 8 bytes name the encoding, but some tools leave them out."""
    if not isinstance(comment, bytes):
        return comment if isinstance(comment, str) else None
    text = comment[8:] if 0 in comment[:8] else comment
    if not comment.startswith(_UTF_16) or 0 not in text:
        return text.decode("utf-8", "replace")
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return text.decode("utf-16", "replace")
    # Files have either order of bytes; in most texts, most letters have a zero as their higher byte.
    is_little = text[1::2].count(0) > text[::2].count(0)
    return text.decode("utf-16-le" if is_little else "utf-16-be", "replace")
