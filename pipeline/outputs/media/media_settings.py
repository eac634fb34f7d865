"""What a job says about how clips are stored, and how large one may become when it is decoded.

Imports no codec. A clip of an output may be anybody's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast, get_args

from framefleet.pipeline.errors import FramefleetError, JobError, Refused, RenderError
from framefleet.pipeline.request import MAX_FPS, MIN_FPS

LARGEST_FRAME = 1 << 26  # 8192 x 8192, as in docs/inputs.md
MOST_FRAMES = 1 << 14  # eleven minutes at 24 fps
MOST_PIXELS = 1 << 30  # of all frames together, which are held at one time: 3 GB, 517 frames of 1080 x 1920
MOST_SAMPLES = 1 << 28  # of all channels together: half a gigabyte, 46 minutes in stereo at 48 kHz

MediaFormat = Literal["mp4", "mkv", "webm", "webp", "gif", "png", "png.zip", "exr.zip", "flac", "wav"]
# What a file says about its row: how it was made, only its row_id, or nothing. tags: as version 0.1.0.
Embed = Literal["full", "id", "none", "tags"]
COMMENT = "comment"  # the tag that other tools read, and keep when they copy a file or encode it again
# FFmpeg's names for H.264, H.265, AV1, VP9. NVENC is in the GPU: it needs no CPU cores, but its bytes differ
# for equal frames.
VideoEncoder = Literal["libx264", "libx265", "libsvtav1", "libvpx-vp9", "h264_nvenc"]
# For the formats with several encoders; the first is the default.
VIDEO_ENCODERS: dict[MediaFormat, tuple[VideoEncoder, ...]] = {
    "mp4": ("libx264", "libx265", "libsvtav1", "h264_nvenc"),
    "webm": ("libvpx-vp9", "libsvtav1"),
}
# For each scale: the crf at which a clip looks like its frames, and the worst.
_CRF: dict[str, tuple[int, int]] = {
    "libx264": (18, 51),
    "libx265": (20, 51),
    "libsvtav1": (24, 63),
    "libvpx-vp9": (24, 63),
    "h264_nvenc": (18, 51),
    "webp": (10, 100),
}
# What each kind of format holds; what it cannot hold is refused, never dropped.
VIDEOS: tuple[MediaFormat, ...] = ("mp4", "mkv", "webm")
ANIMATIONS: tuple[MediaFormat, ...] = ("webp", "gif")
ZIPS: tuple[MediaFormat, ...] = ("png.zip", "exr.zip")
SOUNDS: tuple[MediaFormat, ...] = ("flac", "wav")
LOSSY: tuple[MediaFormat, ...] = ("mp4", "webm", "webp", "gif")
SAME_RATE = 1000  # rates that differ by less than this part are the same: 23.976 and 24000/1001
# Browsers take faster ones for mistakes, and show them at 10 frames per second.
_MOST_FPS: dict[MediaFormat, int] = {"gif": 50, "webp": 100}


def check_pixels(width: int, height: int, num_frames: int) -> None:
    """Raise ValueError for more frames or pixels than we decode."""
    if num_frames > MOST_FRAMES:
        raise ValueError(f"they have more than {MOST_FRAMES:,} frames")
    if width * height > LARGEST_FRAME:
        raise ValueError(f"a frame of {height} x {width} has more than {LARGEST_FRAME:,} pixels")
    if width * height * num_frames > MOST_PIXELS:
        raise ValueError(f"{num_frames} frames of {height} x {width} have more than {MOST_PIXELS:,} pixels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """How clips are stored: mp4 is H.264, H.265 or AV1, and AAC; webm is VP9 or AV1, and Opus; mkv is
    lossless FFV1, with alpha, and FLAC; webp (with alpha) and gif are animated; png holds one frame, with
    alpha; png.zip and exr.zip hold a file for each frame or layer, OpenEXR floats of any value; flac
    and wav hold sound alone.
    """

    format: MediaFormat = "mp4"
    crf: int | None = None  # on the encoder's own scale, from 0, the best; None: a clip looks like its frames
    fps: float | None = None  # None: the row's or the model's native rate
    audio: bool = True  # clips have their sound
    encoder: VideoEncoder | None = None  # of mp4 and webm; None is H.264 or VP9
    previews: bool = True  # a small still lies next to each clip
    embed: Embed = "full"

    def __post_init__(self) -> None:
        for name, kind in (("format", MediaFormat), ("encoder", VideoEncoder), ("embed", Embed)):
            if (value := getattr(self, name)) not in (None, *get_args(kind)):
                raise JobError(f"media.{name} is {value!r}", f"use one of {', '.join(get_args(kind))}")
        # libx264 is what job.json has where nothing is encoded by it.
        if self.encoder not in (None, *VIDEO_ENCODERS.get(self.format, ("libx264",))):
            fitting = [format for format, encoders in VIDEO_ENCODERS.items() if self.encoder in encoders]
            problem = f"media.encoder is {self.encoder}, but {self.format} is not encoded by it"
            raise JobError(problem, f"leave media.encoder out, or set media.format to {' or '.join(fitting)}")
        (best, worst), crf = _CRF[self._scale], self.crf
        if crf is not None and (type(crf) is not int or not 0 <= crf <= worst):
            problem = f"media.crf is {crf!r}"
            raise JobError(problem, f"use a whole number from 0 (the best) to {worst}, e.g. {best}")
        if self.fps is not None:
            exact_rate(self.fps)
            check_pace(self.fps, self.format, JobError)
        if not self.audio and self.format in SOUNDS:
            problem = f"media.audio is false, but {self.format} only holds sound"
            raise JobError(problem, "leave it at true")

    def refusal(self, fps: float, native_fps: float | None = None, *, times: int = 1) -> Refused | None:
        """Return why a clip cannot have this rate. native_fps: for which its sound is made, if it has one.

        times: by which a second file multiplies the rate.
        """
        try:
            check_pace(fps, self.format, RenderError, times=times)
            if native_fps and abs(fps - native_fps) > native_fps / SAME_RATE:
                raise out_of_step(fps, native_fps)
        except RenderError as error:
            return Refused(reason=error.problem, fix=error.fix)
        return None

    @property
    def codec(self) -> VideoEncoder:
        """The encoder of mp4 and webm; for other formats libx264, which is not used."""
        return self.encoder or VIDEO_ENCODERS.get(self.format, VIDEO_ENCODERS["mp4"])[0]

    @property
    def quality(self) -> int:
        return _CRF[self._scale][0] if self.crf is None else self.crf

    @property
    def _scale(self) -> str:
        return self.format if self.format in _CRF else self.codec

    @property
    def unrepeatable(self) -> str | None:
        """What makes files of equal frames differ, as records name it; None: nothing."""
        return self.codec if self.codec == "h264_nvenc" else None

    @property
    def suffix(self) -> str:
        return f".{self.format}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipHeader:
    """What a clip's file says about itself. Sound alone has no frames."""

    tags: Mapping[str, str]
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    fps: float | None = None  # None: it has no rate, or only about one


def format_of(name: str) -> MediaFormat:
    """Return the format of a file by its name. Raises JobError for an unknown ending."""
    for format in get_args(MediaFormat):
        if name.lower().endswith(f".{format}"):
            return cast(MediaFormat, format)
    raise JobError(f"{name} has an unknown ending", f"use one of .{', .'.join(get_args(MediaFormat))}")


def exact_rate(fps: float) -> Fraction:
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not MIN_FPS <= fps <= MAX_FPS:
        raise JobError(f"fps is {fps!r}", "use a number from 0.1 to 1000, such as 16 or 23.976")
    return Fraction(fps).limit_denominator(1001)  # 1001: the denominator of the NTSC rates


def check_pace(
    fps: float,
    format: MediaFormat,
    error: type[FramefleetError],
    *,
    times: int = 1,
    instead: str = "set media.format to webm or mp4",
) -> None:
    """Raise `error` for a rate that browsers do not show, or files do not hold.

    times: see `refusal`. instead: for formats that others outpace.
    """
    most = _MOST_FPS.get(format, MAX_FPS)
    if fps * times > most:
        what = "browsers show" if format in _MOST_FPS else "files hold"
        fix = f"use {most / times:g} fps or less" + f", or {instead}" * (format in _MOST_FPS)
        raise error(f"{format} at {fps * times:g} fps: {what} no more than {most:g}", fix)


def out_of_step(fps: float, native_fps: float | None) -> RenderError:
    return RenderError(
        f"at {fps:g} fps the frames would not keep step with their sound, made for {native_fps:g}",
        "leave fps out; or give the pipeline its frame_rate, if it takes one; or set media.audio to false",
    )
