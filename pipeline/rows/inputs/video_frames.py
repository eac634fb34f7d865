"""From the bytes of a file to its format, and to the frames and the sound of a video.

Frames are bounded in size and number, and upright. Damaged files are refused.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice

import av
import numpy as np
from PIL import Image

from framefleet.pipeline.errors import InputError
from framefleet.pipeline.model.specs.signature import WITH_ARTICLE, MediaKind
from framefleet.pipeline.outputs.frames.result import Audio
from framefleet.pipeline.outputs.media.av_file import SCALING
from framefleet.pipeline.outputs.media.open_av import open_av
from framefleet.pipeline.rows.inputs.roots import MAX_FRAME_PIXELS, MAX_PIXELS

# The first match counts.
_SIGNATURES: tuple[tuple[bytes, MediaKind | None, str], ...] = (
    (rb"\x89PNG\r\n\x1a\n", "image", "png"),
    (rb"\xff\xd8\xff", "image", "jpeg"),
    (rb"RIFF....WEBP", "image", "webp"),
    (rb"BM", "image", "bmp"),
    (rb"II\*\0|MM\0\*", "image", "tiff"),
    (rb"GIF8", "image", "gif"),
    (rb"8BPS", "image", "psd"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "image", "eps"),
    (rb"....(jP  |ftypjp2)", "image", "jpeg 2000"),
    (rb"\xff\x0a|....JXL ", "image", "jpeg xl"),
    (rb"....ftypavi", "image", "avif"),
    (rb"....ftyp(hei|mif1)", "image", "heic"),
    (rb"\s*<svg", "image", "svg"),
    (rb"RIFF....WAVE", "audio", "wav"),
    (rb"fLaC", "audio", "flac"),
    (rb"ID3|\xff[\xfb\xf3\xf2]", "audio", "mp3"),
    (rb"\xff[\xf1\xf9]", "audio", "aac"),
    (rb"....ftypM4A ", "audio", "m4a"),
    (rb"....(ftypqt|moov|wide|free|skip|pnot|mdat)", "video", "mov"),
    (rb"....ftyp", "video", "mp4"),
    (rb"\x1a\x45\xdf\xa3", "video", "mkv or webm"),
    (rb"RIFF....AVI ", "video", "avi"),
    (rb"FLV\x01", "video", "flv"),
    (rb"OggS", "video", "ogg"),
    (rb"\0\0\x01\xba", "video", "mpeg"),
    (rb"G.{187}G|.{4}G.{191}G", "video", "mpeg-ts"),
    (rb"\x30\x26\xb2\x75", "video", "wmv"),
    (rb"%PDF", None, "a PDF"),
    (rb"PK\x03\x04", None, "a zip file"),
    (rb"\x1f\x8b", None, "a gzip file"),
    (rb"(\xef\xbb\xbf)?\s*(?i:<!doctype html|<html)", None, "a web page"),
    (rb"(\xef\xbb\xbf)?\s*<\?xml", None, "an XML document"),
)
MAX_DECODED_FRAMES = 1 << 14  # 11 minutes at 24 frames per second
# Containers that hold their own frames. FFmpeg also has demuxers for lists (hls, concat, dash), which open
# the files and URLs in them, and one that draws any text as a film (tty).
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,gif,ogg,asf,mpeg,mpegts"
CONTAINERS += ",mxf,dv,nut,ivf,yuv4mpegpipe,mpegvideo,m4v,h264,hevc,obu"
_OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}
# explode: raise for damage, where FFmpeg would continue with grey blocks.
_CODEC_OPTIONS = {"err_detect": "explode"}
# What codecs add to width and height; MPEG-4 adds the most, for areas outside of the picture.
_PADDING = (128, 288)
BYTES_PER_FRAME_PIXEL = 100  # sixteen reference frames of six bytes (4:4:4, 16 bits), and copies
MATROSKA, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# Samples of all channels: 23 minutes of stereo at 48 kHz, half a gigabyte as floats.
MAX_SOUND_VALUES = 1 << 27
SOUND_BYTES = 64 << 20  # for a few packets, which are not kept
_SOUND_OPTIONS = {**_OPTIONS, "format_whitelist": f"{CONTAINERS},wav,mp3,flac,aac"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind:
    """kind: None for other files. name: the format's, for people."""

    kind: MediaKind | None
    name: str

    def __str__(self) -> str:
        return f"{WITH_ARTICLE[self.kind]} ({self.name})" if self.kind else self.name


_PATTERNS = tuple(
    (re.compile(pattern, re.DOTALL), FileKind(kind=kind, name=name)) for pattern, kind, name in _SIGNATURES
)


def file_kind(content: bytes) -> FileKind | None:
    """Return the kind of a file by its first bytes; None if they are unknown."""
    start = content[:512]
    return next((kind for pattern, kind in _PATTERNS if pattern.match(start)), None)


def _container(content: bytes) -> FileKind | None:
    """Return what FFmpeg takes a file for; None if it cannot open it."""
    try:
        with _opened(content, codec_whitelist="none") as container:
            kind: MediaKind = "video" if container.streams.video else "audio"
            return FileKind(kind=kind, name=container.format.name)
    except (av.FFmpegError, EOFError, ValueError):
        return None


def checked_kind(content: bytes, wanted: MediaKind) -> FileKind:
    """Return a file's kind. Raises InputError if it is not the wanted one; a video may serve as sound."""
    file = file_kind(content) or _container(content)
    if file and (file.kind == wanted or (wanted, file.kind) == ("audio", "video")):
        return file
    if file and file.name == "gif":  # an image, or a video without sound
        return file
    medium = WITH_ARTICLE[wanted]
    problem = f"it is {file}, not {medium}" if file else f"it is not {medium}"
    raise InputError(problem, f"use {medium}")


class Budget:
    """Memory that threads share. A block that needs more than the total takes all of it and runs alone."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._turn = threading.Lock()  # first come, first served: a large block does not wait for later ones
        self._changed = threading.Condition()

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Hold `count` bytes, once they are free."""
        count = min(count, self._total)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= count)
            self._free -= count
        try:
            yield
        finally:
            with self._changed:
                self._free += count
                self._changed.notify()


DECODING = Budget(1 << 30)  # what an image of 67 million pixels takes; usual ones take a hundredth of that


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTimes:
    """When each frame of a video is shown, in order. pts, keys: in the stream's time base."""

    pts: list[int]
    seconds: list[float]
    keys: list[tuple[int, int]]  # of frames where decoding can begin: when shown, when decoded
    tick_s: float  # how exact they are: a millisecond in Matroska


def frame_times_of(content: bytes) -> FrameTimes:
    """Return when each frame is shown, according to the container. Decodes nothing.

    Raises InputError if the time of any frame is missing.
    """
    try:
        with _opened(content) as container:
            stream = _stream(container)
            packets = (packet for packet in container.demux(stream) if packet.size and not packet.is_discard)
            times = [(packet.pts, packet.dts, packet.is_keyframe) for packet in packets]
            base = stream.time_base
    except (av.FFmpegError, EOFError, ValueError) as error:
        raise _damaged() from error
    pts = sorted({shown for shown, _, _ in times if shown is not None})
    if not pts or not base or len(pts) < len(times):
        problem = "no part of it can be used, because it does not say when each frame is shown"
        raise InputError(problem, "write it again, as H.264 in mp4")
    keys = sorted(
        (shown, decoded)
        for shown, decoded, is_key in times
        if is_key and shown is not None and decoded is not None
    )
    seconds = [float((shown - pts[0]) * base) for shown in pts]
    return FrameTimes(pts=pts, seconds=seconds, keys=keys, tick_s=float(base))


def frames_of(content: bytes, *, first: int = 0, times: FrameTimes | None = None) -> Generator[Image.Image]:
    """Yield RGB frames in order as they are stored, regardless of the frame rate, turned as the file says.

    first: the frame to begin with. times: of the file, if known. Raises InputError if the file is damaged or
    beyond a bound, maybe after some frames. If you do not take all frames, close it: it holds memory of
    `DECODING`.
    """
    if _is_cut_off(content):
        raise _damaged()
    size, count, pixels = None, 0, most_pixels(content)
    if first and times is None:
        times = frame_times_of(content)
    try:
        # FFmpeg decodes some frames when it opens a file, and later frames of a stream may be larger.
        bound = {"max_pixels": str(pixels)}
        with DECODING.take(BYTES_PER_FRAME_PIXEL * pixels), _opened(content, **bound) as container:
            stream = _stream(container)
            stream.codec_context.options = {**_CODEC_OPTIONS, **bound}
            stream.codec_context.thread_count = 1  # many files are decoded side by side
            decoded = container.decode(stream) if times is None else _from(container, times, first)
            for frame in decoded:
                count += 1
                if frame.is_corrupt:
                    raise _damaged()
                if size not in (None, (frame.width, frame.height)):
                    raise InputError("its frames are not all of one size", "write it again at one size")
                size = (frame.width, frame.height)
                if frame.width * frame.height > MAX_FRAME_PIXELS:
                    raise _too_large(frame.width, frame.height)
                limit = min(MAX_DECODED_FRAMES, MAX_PIXELS // (frame.width * frame.height))
                if count > limit:
                    raise InputError(f"it has more than {limit:,} frames", "cut it, or make it smaller")
                rgb = frame.reformat(format="rgb24", interpolation=SCALING, threads=1).to_ndarray()
                turns = Fraction(frame.rotation, 90)  # counterclockwise
                yield Image.fromarray(np.rot90(rgb, int(turns)) if turns.denominator == 1 else rgb)
    except (av.FFmpegError, EOFError, ValueError) as error:
        # FFmpeg's errors have several classes. ValueError: a pixel layout that swscale does not support.
        raise _damaged() from error
    if not count:
        raise InputError("it has no frames", "use a file with a picture track")


def _from(container: av.container.InputContainer, times: FrameTimes, first: int) -> Iterator[av.VideoFrame]:
    """Yield frames from `first` on; each must be shown at its time in `times`. Decodes few frames before."""
    stream, wanted = container.streams.video[0], times.pts[first:]
    before = [decoded for shown, decoded in times.keys if shown <= wanted[0]]
    # In some files (open GOPs), a frame needs frames from before the last key frame.
    for begin in [*before[-2:][::-1], times.keys[0][1] if times.keys else 0]:
        container.seek(begin, stream=stream)
        frames = container.decode(stream)
        try:
            late = (frame for frame in islice(frames, MAX_DECODED_FRAMES) if (frame.pts or 0) >= wanted[0])
            start = next(late, None)
        except av.FFmpegError:
            continue
        if start is not None and start.pts == wanted[0]:
            break
    else:
        raise _wrong_times()
    for frame, shown in zip(chain([start], frames), wanted, strict=False):
        if frame.pts != shown:
            raise _wrong_times()
        yield frame


def _wrong_times() -> InputError:
    problem = "its frames are not shown at the times that the container says"
    return InputError(problem, "cut the part into a separate file")


def declared_frames(content: bytes) -> tuple[int, float | None]:
    """Return a video's number of frames (0: unknown) and frame rate by its header. Decodes nothing."""
    with _opened(content, codec_whitelist="none") as container:
        stream = container.streams.video[0]
        rate = stream.average_rate
        return stream.frames, float(rate) if rate else None


def most_pixels(content: bytes) -> int:
    """Return the largest number of pixels of a frame by the header. Decodes nothing. Raises InputError."""
    try:
        with _opened(content, codec_whitelist="none") as container:
            context = _stream(container).codec_context
            width, height = context.width, context.height
    except (av.FFmpegError, EOFError, ValueError) as error:
        raise _damaged() from error
    if width * height > MAX_FRAME_PIXELS:
        raise _too_large(width, height)
    if not width * height:
        return MAX_FRAME_PIXELS  # in some containers, only the first frame has the size
    return min((width + _PADDING[0]) * (height + _PADDING[1]), MAX_FRAME_PIXELS)


def _opened(content: bytes, **options: str) -> av.container.InputContainer:
    return open_av(content, {**_OPTIONS, **options})


def _stream(container: av.container.InputContainer) -> av.VideoStream:
    if not container.streams.video:
        raise InputError("it has no picture track", "use a video, not only sound")
    stream = container.streams.video[0]
    if stream.codec_context is None:  # if FFmpeg has no decoder, although PyAV's types do not allow it
        raise _damaged()
    return stream


def _is_cut_off(content: bytes) -> bool:
    """Return whether a Matroska file is shorter than it says; FFmpeg plays what is there without an error."""
    if not content.startswith(MATROSKA):
        return False
    header, start = _matroska_size(content, len(MATROSKA))
    start += header or 0
    if content[start : start + len(SEGMENT)] != SEGMENT:
        return False
    size, start = _matroska_size(content, start + len(SEGMENT))
    return size is not None and start + size > len(content)


def _matroska_size(content: bytes, at: int) -> tuple[int | None, int]:
    """Return (size of an element, where it begins); size None in a live recording. RFC 8794, section 4."""
    first = content[at] if at < len(content) else 0
    length = 9 - first.bit_length()
    largest = (1 << 7 * length) - 1
    size = int.from_bytes(content[at : at + length], "big") & largest
    return (None if size == largest else size), at + length


def _damaged() -> InputError:
    problem = "it cannot be decoded: damaged, cut off or in a rare format"
    return InputError(problem, "write it again, as H.264 in mp4")


def _too_large(width: int, height: int) -> InputError:
    problem = f"its frames are {height} x {width} (height x width), more than {MAX_FRAME_PIXELS:,} pixels"
    return InputError(problem, "make it smaller")


def num_samples(content: bytes) -> int:
    """Return how many samples each channel has; 0 without a sound track. Raises InputError."""
    checked_kind(content, "audio")
    count = values = 0
    try:
        with open_av(content, _SOUND_OPTIONS) as container:
            for frame in container.decode(container.streams.audio[0]) if container.streams.audio else ():
                count += frame.samples
                values += frame.samples * frame.layout.nb_channels
                if values > MAX_SOUND_VALUES:
                    raise InputError(f"its sound has more than {MAX_SOUND_VALUES:,} values", "cut it")
    except (av.FFmpegError, EOFError, ValueError) as error:
        raise InputError("its sound cannot be decoded", "write it again, as wav, or as AAC in mp4") from error
    return count


def open_sound(content: bytes) -> Audio | None:
    """Return the sound, mixed to one channel; None if there is none. Raises InputError."""
    if not num_samples(content):  # also checks the bounds
        return None
    with open_av(content, _SOUND_OPTIONS) as container:
        rate = container.streams.audio[0].rate
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
        parts = [*container.decode(container.streams.audio[0]), None]
        samples = [frame.to_ndarray() for part in parts for frame in resampler.resample(part)]
    return Audio(samples=np.concatenate(samples, axis=1), sample_rate=rate)
