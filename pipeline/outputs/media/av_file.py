"""From frames and sound to the bytes of an mp4, webm, mkv, flac or wav, with FFmpeg; and back."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

from framefleet.pipeline.errors import JobError, RenderError
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.frames.result import Audio, Pcm
from framefleet.pipeline.outputs.media.media_settings import (
    COMMENT,
    LARGEST_FRAME,
    MOST_SAMPLES,
    VIDEO_ENCODERS,
    ClipHeader,
    Media,
    check_pixels,
)
from framefleet.pipeline.outputs.media.open_av import open_av
from framefleet.pipeline.outputs.media.picture_files import text_tags

# Without these flags swscale may take another path on another CPU.
SCALING = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)
_COLOURS: dict[str, Any] = {
    "dst_colorspace": Colorspace.ITU709,
    "dst_color_range": ColorRange.MPEG,
    "dst_color_primaries": ColorPrimaries.BT709,
    "dst_color_trc": ColorTrc.BT709,
}
# One thread: with another number, x264 writes other bytes; rows are encoded in parallel anyway.
_CODEC_OPTIONS = {"threads": "1", "flags": "+bitexact"}
# cpu-independent: x264 must not choose its algorithms by the CPU.
X264_OPTIONS = {"preset": "medium", "x264-params": "cpu-independent=1"}
# Of each encoder, besides its crf. x265 and SVT-AV1 have their own threads, and print a line for every clip.
_ENCODER_OPTIONS = {
    "libx264": X264_OPTIONS,
    "libx265": {"preset": "medium", "x265-params": "pools=none:frame-threads=1:wpp=0:info=0:log-level=none"},
    "libsvtav1": {"preset": "6", "svtav1-params": "lp=1"},
    "libvpx-vp9": {"deadline": "good", "cpu-used": "2", "row-mt": "0", "b": "0"},
    "h264_nvenc": {"rc": "constqp"},
}
# With frames smaller than its blocks (64), x265 4.1 writes beyond its memory; with sides of 64, it reads what
# it never wrote, so bytes differ. With fewer frames, reordered, it reads times that it never wrote.
_X265_LEAST_SIDE, _X265_LEAST_FRAMES = 65, 4
os.environ.setdefault("SVT_LOG", "0")  # FFmpeg reports what went wrong
# bitexact: no encoder version, date or random segment id. faststart: a browser plays before the end arrives.
CONTAINER_OPTIONS = {name: {"fflags": "+bitexact"} for name in ("mp4", "mkv", "webm", "flac", "wav")}
CONTAINER_OPTIONS["mp4"]["movflags"] = "use_metadata_tags+faststart"
# Only what we write is read. FFmpeg also has formats that name files and URLs, which it opens (hls, concat,
# dash), and the size of frames may grow within a file.
_READING = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,flac,wav",
    "codec_whitelist": "h264,hevc,libdav1d,vp9,ffv1,aac,opus,flac,pcm_s16le",
    "protocol_whitelist": "none",
}
_DECODING = {"max_pixels": str(LARGEST_FRAME)}
_SOUND_CODECS = {"mp4": "aac", "webm": "libopus", "mkv": "flac", "flac": "flac", "wav": "pcm_s16le"}
CONTAINER_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})
# Codecs that only have some rates.
_SOUND_RATES = {
    "aac": (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350),
    "libopus": (48000, 24000, 16000, 12000, 8000),
}
# Maximum bits per second of each channel, at which the loss cannot be heard.
_SOUND_BITS = {"aac": 128_000, "libopus": 96_000}
_LAYOUTS = {1: "mono", 2: "stereo"}


def encode_av(
    frames: Frames | None, audio: Audio | None, *, media: Media, rate: Fraction, tags: Mapping[str, str]
) -> bytes:
    """Return the file's bytes. Raises RenderError for sound that the format lacks, and FFmpeg's errors."""
    codec = _SOUND_CODECS[media.format]
    if audio and audio.sample_rate not in _SOUND_RATES.get(codec, (audio.sample_rate,)):
        problem = f"the sound has {audio.sample_rate} samples per second, which {codec} does not support"
        raise RenderError(problem, "set media.format to mkv")
    if frames is not None and media.codec == "libx265" and min(frames.shape[1:3]) < _X265_LEAST_SIDE:
        fix = "render more than 64 pixels a side, or leave media.encoder out"
        raise RenderError(f"frames of {frames.shape[2]}x{frames.shape[1]} are too small for libx265", fix)
    with _scratch_file() as path:
        kind = "matroska" if media.format == "mkv" else media.format
        with av.open(str(path), "w", format=kind, options=CONTAINER_OPTIONS[media.format]) as container:
            # wav only has a few tags, with its own names
            container.metadata.update({COMMENT: json.dumps(tags)} if tags and media.format == "wav" else tags)
            video = None if frames is None else _Video(container, frames, media=media, rate=rate)
            sound = _Sound(container, audio, media.format) if audio else None
            for index in range(0 if frames is None else len(frames)):
                if video:
                    video.write(index)
                if sound:  # the sound of this frame: players read both side by side
                    sound.write_until(round((index + 1) * sound.sample_rate / rate))
            if video:
                video.close()
            if sound:
                sound.close()
        return path.read_bytes()


@contextmanager
def _scratch_file() -> Iterator[Path]:
    """Yield a path of a file in memory, which is gone afterwards; faststart opens it again by its name."""
    handle = os.memfd_create("clip")
    try:
        yield Path(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


def check_encoder(media: Media) -> None:
    """Raise JobError if this machine, or its PyAV, lacks the encoder that a job asks for."""
    if media.format not in VIDEO_ENCODERS:
        return
    black = np.zeros((1, 256, 256, 3), np.uint8)
    try:
        encode_av(black, None, media=media, rate=Fraction(1), tags={})
        av.Codec(_SOUND_CODECS[media.format], "w")
    except (av.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        raise JobError(
            f"media.encoder is {media.codec}, which PyAV {av.__version__} cannot use on "
            f"{socket.gethostname()}: {error}",
            f"use one of {', '.join(VIDEO_ENCODERS[media.format])}; NVENC needs a GPU and its driver",
        ) from error


class _Video:
    def __init__(
        self, container: av.container.OutputContainer, frames: Frames, *, media: Media, rate: Fraction
    ) -> None:
        _, height, width, channels = frames.shape
        is_rgb = media.format == "mkv"
        if is_rgb:
            self._pixels = "bgra" if channels == 4 else "bgr0"  # FFV1's 8-bit RGB
            codec, options = "ffv1", {"level": "3"}
        else:
            is_halved = height % 2 == width % 2 == 0 or media.codec == "libsvtav1"  # which has nothing else
            self._pixels = "yuv420p" if is_halved else "yuv444p"
            codec, options = media.codec, dict(_ENCODER_OPTIONS[media.codec])
            if codec == "libx265" and len(frames) < _X265_LEAST_FRAMES:
                options["x265-params"] += ":bframes=0"
            scale = "qp" if codec == "h264_nvenc" else "crf"
            quality = max(1, media.quality) if codec == "libsvtav1" else media.quality  # whose 0 is 35
            options[scale] = str(quality)
        self._container, self._frames, self._rate = container, frames, rate
        stream = container.add_stream(codec, rate=rate, options=_CODEC_OPTIONS | options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, self._pixels
        if not is_rgb:
            # Which colours the numbers mean: an untagged small clip is shown as BT.601, with other colours.
            for name, value in _COLOURS.items():
                setattr(stream.codec_context, name.removeprefix("dst_"), value)
        if codec == "libx265" and media.format == "mp4":
            stream.codec_context.codec_tag = "hvc1"  # Apple's players know no other
        with scheduling_restored():
            stream.codec_context.open()
        self._stream = stream

    def write(self, index: int) -> None:
        pixels = "rgba" if self._frames.shape[-1] == 4 else "rgb24"
        frame = av.VideoFrame.from_ndarray(self._frames[index], format=pixels)
        if self._pixels in ("bgr0", "bgra"):
            frame = frame.reformat(format=self._pixels, threads=1)
        else:
            frame = frame.reformat(format=self._pixels, interpolation=SCALING, threads=1, **_COLOURS)
        frame.pts, frame.time_base = index, 1 / self._rate
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode())


@contextmanager
def scheduling_restored() -> Iterator[None]:
    """Give this thread's policy back to every thread that the block makes real-time.

    If root opens SVT-AV1, it gives the calling thread, and its own, the policy FIFO with the highest
    priority, and leaves it so. That thread, and each process that it starts, would then leave 5 % of a core
    to all others: no other worker, Ray or lock of a driver would beat in time.
    https://gitlab.com/AOMediaCodec/SVT-AV1/-/blob/v4.1.0/Source/Lib/Globals/enc_handle.c
    """

    def real_time_threads() -> set[int]:
        threads = set()
        for thread in map(int, os.listdir("/proc/self/task")):
            with suppress(ProcessLookupError):  # it has ended
                if os.sched_getscheduler(thread) == os.SCHED_FIFO:
                    threads.add(thread)
        return threads

    policy, parameters, before = os.sched_getscheduler(0), os.sched_getparam(0), real_time_threads()
    try:
        yield
    finally:
        for thread in real_time_threads() - before:
            with suppress(ProcessLookupError):
                os.sched_setscheduler(thread, policy, parameters)


class _Sound:
    def __init__(self, container: av.container.OutputContainer, audio: Audio, kind: str) -> None:
        self._container, self._pcm, self._at = container, audio.pcm(), 0
        self.sample_rate, self._layout = audio.sample_rate, _LAYOUTS[audio.num_channels]
        codec = _SOUND_CODECS[kind]
        rate, layout = audio.sample_rate, self._layout
        stream = container.add_stream(codec, rate=rate, layout=layout, options=_CODEC_OPTIONS)
        assert isinstance(stream, av.AudioStream)
        if codec in _SOUND_BITS:  # less than the 6 bits a sample that AAC can hold
            stream.bit_rate = audio.num_channels * min(_SOUND_BITS[codec], 5 * audio.sample_rate)
        self._stream = stream

    def write_until(self, end: int) -> None:
        part = self._pcm[self._at : end]
        if not len(part):
            return
        frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="s16", layout=self._layout)
        frame.sample_rate = self.sample_rate
        frame.pts, frame.time_base = self._at, Fraction(1, self.sample_rate)
        self._at += len(part)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self.write_until(len(self._pcm))
        self._container.mux(self._stream.encode())


def decode_frames(media_bytes: bytes) -> Frames:
    """Return the frames of a file that `encode_av` wrote: the same for mkv, similar ones for others."""
    frames: list[Frames] = []
    with open_media(media_bytes) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = dict(_DECODING)
        for frame in container.decode(stream):
            check_pixels(frame.width, frame.height, len(frames) + 1)
            pixels = "rgba" if frame.format.name == "bgra" else "rgb24"
            rgb = frame.reformat(format=pixels, interpolation=SCALING, threads=1)
            frames.append(rgb.to_ndarray().astype(np.uint8, copy=False))
    return np.stack(frames)


def decode_sound(media_bytes: bytes) -> tuple[Pcm, int] | None:
    """Return samples (samples, channels) and rate; similar ones for mp4 and webm. None without sound."""
    with open_media(media_bytes) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        layout = _LAYOUTS[stream.channels]
        resampler = av.AudioResampler(format="s16", layout=layout, rate=stream.rate)
        parts: list[av.AudioFrame] = []
        num_samples = 0
        for frame in container.decode(stream):
            num_samples += frame.samples * stream.channels
            if num_samples > MOST_SAMPLES:
                raise ValueError(f"the sound has more than {MOST_SAMPLES:,} samples")
            parts += resampler.resample(frame)
        decoded = [part.to_ndarray().reshape(-1, stream.channels) for part in parts]
        # In AAC, a few samples alone make no frame.
        samples = np.concatenate(decoded) if decoded else np.empty((0, stream.channels))
        return samples.astype("<i2", copy=False), stream.rate


def read_tags(media_bytes: bytes) -> dict[str, str]:
    with open_media(media_bytes) as container:
        return _tags_of(container, media_bytes)


def _tags_of(container: av.container.InputContainer, media_bytes: bytes) -> dict[str, str]:
    # Matroska has keys in upper case; what is not UTF-8 is a surrogate in PyAV 19.
    tags = {
        key.lower(): value.encode("utf-8", "ignore").decode() for key, value in container.metadata.items()
    }
    if media_bytes.startswith(b"RIFF"):
        return text_tags(tags.get(COMMENT, "{}"))
    return {key: value for key, value in tags.items() if key not in CONTAINER_TAGS}


def av_header(media_bytes: bytes) -> ClipHeader:
    # Without codecs, FFmpeg decodes no frames of a file that it opens; with the format, it tries no others.
    kind = "mp4" if media_bytes[4:8] == b"ftyp" else None
    kind = "matroska" if media_bytes.startswith(b"\x1aE\xdf\xa3") else kind
    with open_media(media_bytes, kind, codec_whitelist="none") as container:
        tags = _tags_of(container, media_bytes)
        if not container.streams.video:
            return ClipHeader(tags=tags)
        stream = container.streams.video[0]
        # Matroska counts no frames.
        num_frames = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        size = {"height": stream.height, "width": stream.width, "num_frames": num_frames}
        rate = stream.average_rate
        return ClipHeader(tags=tags, **size, fps=float(rate) if rate else None)


def open_media(media_bytes: bytes, kind: str | None = None, **options: str) -> av.container.InputContainer:
    """Open a file that may be anybody's: it cannot lead FFmpeg to other files or URLs. Raises FFmpegError."""
    return open_av(media_bytes, {**_READING, **_DECODING, **options}, kind=kind)
