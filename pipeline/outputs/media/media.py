"""In: frames, sound and tags. Out: the bytes of one file, always the same for the same input; and back."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

import av
import numpy as np
from PIL import Image

from framefleet.pipeline.errors import FULL_ERRNOS, RenderError, StoreError, count_text
from framefleet.pipeline.outputs.frames.frames import Frames, Pictures, beyond_range, eight_bits
from framefleet.pipeline.outputs.frames.result import Audio, Pcm
from framefleet.pipeline.outputs.media import picture_files
from framefleet.pipeline.outputs.media.av_file import (
    av_header,
    decode_frames,
    decode_sound,
    encode_av,
    read_tags,
)
from framefleet.pipeline.outputs.media.media_settings import (
    ANIMATIONS,
    SOUNDS,
    ZIPS,
    ClipHeader,
    Media,
    exact_rate,
)

PREVIEW_SIDE = 320  # pixels of the longer side: sharp on a tile of a dense screen, 10 KB
# 2 of 6: a tenth larger than the slowest, at a third of its time (docs/gallery.md, "What previews cost").
_EFFORT, _QUALITY = 2, 80

FilePart = TypeVar("FilePart")  # frames, sound or tags


def encode(
    frames: Pictures | None,
    *,
    media: Media,
    fps: float,
    metadata: Mapping[str, str],
    audio: Audio | None = None,
) -> bytes:
    """Return the file's bytes; equal arguments give equal bytes in every process.

    metadata: written as the container's own tags (png: iTXt chunks, zip: tags.json, webp: Exif, gif: a
    comment); keys in lower case. "comment" is `parameters` in png, and UserComment in webp. mp4 and webm are
    4:2:0, but 4:4:4 if a side is odd (and it is not AV1), which not every player shows. Raises RenderError
    for what the format cannot hold.
    """
    _check(frames, audio, media)
    # Without what a C string cannot hold (NUL), or UTF-8 (lone surrogates).
    tags = {
        key: text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
        for key, text in metadata.items()
    }
    rate = exact_rate(fps)
    try:
        if frames is not None and media.format == "png":
            return picture_files.encode_png(frames, tags)
        if frames is not None and media.format in ANIMATIONS:
            return picture_files.encode_animation(frames, media=media, rate=rate, tags=tags)
        if frames is not None and media.format in ZIPS:
            flac = Media(format="flac")
            sound = encode_av(None, audio, media=flac, rate=rate, tags={}) if audio else None
            kind: Literal["png", "exr"] = "exr" if media.format == "exr.zip" else "png"
            return picture_files.encode_zip(frames, sound, kind=kind, tags=tags)
        return encode_av(frames, audio, media=media, rate=rate, tags=tags)  # type: ignore[arg-type]  # checked
    except av.FFmpegError as error:
        if error.errno in FULL_ERRNOS:  # the machine's fault, not the row's
            raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from error
        shown = "sound"
        if frames is not None:
            shown = f"{count_text(len(frames), 'frame')} of {frames.shape[2]}x{frames.shape[1]}"
        problem = f"{shown} could not be written as {media.format}: {error}"
        raise RenderError(problem, "use a larger or an even size, or another media.format") from error


def preview_of(frames: Pictures) -> bytes:
    """Return the middle frame as WebP, made smaller, never larger; equal frames give equal bytes.

    It is shown before a clip plays, or instead of it. Not the first frame: many clips begin with their input.
    """
    still = Image.fromarray(eight_bits(frames[len(frames) // 2]))
    still.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    still.save(buffer, format="WEBP", quality=_QUALITY, method=_EFFORT)
    return buffer.getvalue()


def decode(media_bytes: bytes) -> Frames:
    """Return the frames of a file that `encode` wrote; similar ones for formats with loss (`LOSSY`).

    Floats of exr.zip become 8 bits. Raises StoreError, as all readers here, for a file that is too large, or
    of another kind.
    """
    return eight_bits(decode_floats(media_bytes))


def decode_floats(media_bytes: bytes) -> Pictures:
    """Return the frames of a file as they are: those of exr.zip as floats."""
    return _read(media_bytes, picture_files.decode_zip, picture_files.decode_pillow, decode_frames)


def decode_audio(media_bytes: bytes) -> tuple[Pcm, int] | None:
    """Return samples (samples, channels) and rate; similar ones for mp4 and webm. None without sound."""

    def zip_sound(media_bytes: bytes) -> tuple[Pcm, int] | None:
        sound = picture_files.read_zip_sound(media_bytes)
        return None if sound is None else decode_sound(sound)

    return _read(media_bytes, zip_sound, lambda _: None, decode_sound)


def read_metadata(media_bytes: bytes) -> dict[str, str]:
    """Return the tags that `encode` has written; for jpegs and other people's files, the texts in them."""
    return _read(media_bytes, picture_files.read_zip_tags, picture_files.read_pillow_tags, read_tags)


def clip_header(media_bytes: bytes) -> ClipHeader:
    """Return what a file that `encode` wrote says about itself, without decoding its frames."""
    return _read(media_bytes, picture_files.zip_header, picture_files.pillow_header, av_header)


def _read(
    media_bytes: bytes,
    of_zip: Callable[[bytes], FilePart],
    of_pillow: Callable[[bytes], FilePart],
    of_ffmpeg: Callable[[bytes], FilePart],
) -> FilePart:
    """Return what the reader for a file's first bytes returns."""
    try:
        if media_bytes.startswith(picture_files.ZIP_SIGNATURE):
            return of_zip(media_bytes)
        return (of_pillow if picture_files.is_pillow_file(media_bytes) else of_ffmpeg)(media_bytes)
    except MemoryError:
        raise
    except Exception as error:
        # FFmpeg, Pillow and zipfile raise all kinds of errors for broken bytes: SyntaxError, ...
        fix = "fetch the file again; if its media_sha256 is not the record's, the stored clip was changed"
        raise StoreError(f"these bytes are not a clip: {error}", fix) from error


def _check(frames: Pictures | None, audio: Audio | None, media: Media) -> None:
    """Raise RenderError for what the format cannot hold: nothing is left out of a file."""
    format = media.format
    if frames is None and (format not in SOUNDS or audio is None):
        raise RenderError(f"the row only has sound, but {format} holds frames", "set media.format to flac")
    if frames is None:
        return
    if format in SOUNDS:
        raise RenderError(f"the row has frames, but {format} only holds sound", "set media.format to mp4")
    if audio and format in ("png", *ANIMATIONS):
        problem = f"the row has sound, but {format} holds none"
        raise RenderError(problem, "set media.format to mp4, webm or mkv; or media.audio to false")
    if format == "png" and len(frames) != 1:
        problem = f"png holds one frame, but the clip has {len(frames)}"
        raise RenderError(problem, "set media.format to mp4 or mkv, or for layers to png.zip")
    if frames.dtype != np.uint8 and format != "exr.zip":
        raise beyond_range(frames)
    if frames.shape[-1] == 4 and format in ("mp4", "webm", "gif"):
        problem = f"the frames have alpha, but {format} has none"
        raise RenderError(problem, "set media.format to mkv, webp, png or png.zip")
