"""Frames, layers and sound to a zip of one file for each, always the same bytes; and back."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

import av
import numpy as np
from PIL import Image

from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.outputs.frames.frames import Pictures
from framefleet.pipeline.outputs.media.media_settings import LARGEST_FRAME, check_pixels

ZIP_SIGNATURE = b"PK\x03\x04"
_TAGS, SOUND_FILE = "tags.json", "sound.flac"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can say
_EXR = {"compression": "zip16", "format": "float", "threads": "1"}  # 32-bit floats, compressed without loss
_PIXELS = {3: "gbrpf32le", 4: "gbrapf32le"}


def encode_zip(
    frames: Pictures, sound: bytes | None, *, kind: Literal["png", "exr"], tags: Mapping[str, str]
) -> bytes:
    """Return a zip of 0000.png or 0000.exr and so on, sound.flac and tags.json.

    frames: uint8 for png. In exr 8-bit values are divided by 255, and floats are as they are.
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
    files = _members(media_bytes)
    names = sorted(name for name in files if name.endswith((".png", ".exr")))
    frames = []
    for name in names:
        if not names[0].endswith(".exr"):
            with Image.open(io.BytesIO(files[name]), formats=["PNG"]) as image:
                check_pixels(image.width, image.height, len(names))
                frames.append(np.asarray(image))
        else:
            context = av.VideoCodecContext.create("exr", "r")
            context.options = {"max_pixels": str(LARGEST_FRAME)}
            (frame,) = [*context.decode(av.Packet(files[name])), *context.decode(None)]
            check_pixels(frame.width, frame.height, 4 * len(names))  # floats
            frames.append(frame.to_ndarray().astype(np.float32, copy=False))
    return np.stack(frames)


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
            raise ValueError("its files are compressed, as none that framefleet writes")  # or a bomb
        if sum(entry.file_size for entry in archive.infolist()) > len(media_bytes):
            raise ValueError("its files are larger than it is")  # many names of the same bytes
        return {name: archive.read(name) for name in archive.namelist()}
