"""In: frames and tags. Out: the bytes of an mp4, mkv or png, always the same for the same input; and back."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from framefleet.pipeline.errors import RenderError, StoreError
from framefleet.pipeline.outputs.frames import Frames
from framefleet.pipeline.outputs.media_settings import Media, exact_rate

# Without these flags swscale may take another path on another CPU.
SCALING = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)
# One thread: with another number x264 writes other bytes; rows are encoded side by side anyway.
_CODEC_OPTIONS = {"threads": "1", "flags": "+bitexact"}
# cpu-independent: x264 must not choose its algorithms by the CPU it meets.
X264_OPTIONS = {"preset": "medium", "x264-params": "cpu-independent=1"}
# bitexact: no encoder version, date or random segment id. faststart: a browser plays before the end arrives.
CONTAINER_OPTIONS = {
    "mp4": {"fflags": "+bitexact", "movflags": "use_metadata_tags+faststart"},
    "mkv": {"fflags": "+bitexact"},
}
CONTAINER_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode(frames: Frames, *, media: Media, fps: float, metadata: Mapping[str, str]) -> bytes:
    """Return the file's bytes; equal arguments give equal bytes in every process.

    metadata: written as the container's own tags (png: iTXt chunks); keys in lower case.
    mp4 is 4:2:0, but 4:4:4 where a side is odd; not every player shows that.
    """
    tags = {key: _storable(value) for key, value in metadata.items()}
    if media.format == "png":
        return _encode_png(frames, tags)
    num_frames, height, width, _ = frames.shape
    try:
        with tempfile.TemporaryDirectory() as folder:  # faststart opens the file a second time by its name
            path = Path(folder, f"clip{media.suffix}")
            _encode_video(path, frames, media=media, rate=exact_rate(fps), tags=tags)
            return path.read_bytes()
    except av.FFmpegError as error:
        raise RenderError(
            f"{num_frames} frames of {width}x{height} could not be written as {media.format}: {error}",
            "use a larger or an even size, or another media.format; look for a full temporary folder",
        ) from error


def decode(media_bytes: bytes) -> Frames:
    """Return the frames of a file that `encode` wrote: the very same of mkv and png, near ones of mp4."""
    with _reading(media_bytes):
        if media_bytes.startswith(PNG_SIGNATURE):
            with Image.open(io.BytesIO(media_bytes)) as image:
                return np.asarray(image.convert("RGB"))[None]
        with av.open(io.BytesIO(media_bytes), "r") as container:
            return np.stack([_to_rgb(frame) for frame in container.decode(video=0)])


def read_metadata(media_bytes: bytes) -> dict[str, str]:
    """Return the tags that `encode` was given."""
    with _reading(media_bytes):
        if media_bytes.startswith(PNG_SIGNATURE):
            with Image.open(io.BytesIO(media_bytes)) as image:
                image.load()
                return {str(key): str(value) for key, value in image.info.items() if isinstance(value, str)}
        with av.open(io.BytesIO(media_bytes), "r") as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}  # Matroska shouts
            return {key: value for key, value in tags.items() if key not in CONTAINER_TAGS}


def _storable(value: str) -> str:
    """Return `value` without what a C string cannot hold (NUL), or UTF-8 (lone surrogates)."""
    return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _encode_png(frames: Frames, tags: Mapping[str, str]) -> bytes:
    if len(frames) != 1:
        raise RenderError(
            f"png holds one frame, and the clip has {len(frames)}", "set media.format to mp4 or mkv"
        )
    text = PngImagePlugin.PngInfo()
    for key, value in tags.items():
        text.add_itxt(key, value)
    buffer = io.BytesIO()
    Image.fromarray(frames[0]).save(buffer, format="PNG", pnginfo=text, compress_level=6)
    return buffer.getvalue()


def _encode_video(
    path: Path, frames: Frames, *, media: Media, rate: Fraction, tags: Mapping[str, str]
) -> None:
    _, height, width, _ = frames.shape
    if media.format == "mp4":
        pixels = "yuv420p" if height % 2 == width % 2 == 0 else "yuv444p"
        codec, options = "libx264", X264_OPTIONS | {"crf": str(media.crf)}
    else:
        pixels, codec, options = "bgr0", "ffv1", {"level": "3"}  # bgr0: FFV1's 8-bit RGB
    with av.open(str(path), "w", options=CONTAINER_OPTIONS[media.format]) as container:
        container.metadata.update(tags)
        stream = container.add_stream(codec, rate=rate, options=_CODEC_OPTIONS | options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if media.format == "mp4":
            _tag_bt709(stream.codec_context)
        for index, pixels_rgb in enumerate(frames):
            frame = _from_rgb(pixels_rgb, pixels)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _tag_bt709(context: av.VideoCodecContext) -> None:
    """Say which colours the numbers mean; an untagged small clip is shown as BT.601, with other colours."""
    context.color_range = ColorRange.MPEG
    context.colorspace = Colorspace.ITU709
    context.color_primaries = ColorPrimaries.BT709
    context.color_trc = ColorTrc.BT709


def _from_rgb(pixels_rgb: Frames, pixels: str) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(pixels_rgb, format="rgb24")
    if pixels == "bgr0":
        return frame.reformat(format=pixels, threads=1)
    return frame.reformat(
        format=pixels,
        interpolation=SCALING,
        threads=1,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        dst_color_primaries=ColorPrimaries.BT709,
        dst_color_trc=ColorTrc.BT709,
    )


def _to_rgb(frame: av.VideoFrame) -> Frames:
    rgb = frame.reformat(format="rgb24", interpolation=SCALING, threads=1)
    return rgb.to_ndarray().astype(np.uint8, copy=False)


@contextmanager
def _reading(media_bytes: bytes) -> Iterator[None]:
    try:
        yield
    except (av.FFmpegError, UnidentifiedImageError, OSError, ValueError, IndexError) as error:
        # FFmpeg and Pillow meet broken bytes with all of these; np.stack([]) is a ValueError: no frame at all
        raise StoreError(
            f"these {len(media_bytes)} bytes are not a clip: {error}",
            "fetch the file again; if its media_sha256 is not the record's, the stored clip was changed",
        ) from error
