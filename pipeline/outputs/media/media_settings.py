"""What a job says about how clips are stored. Imports no codec."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast, get_args

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.request import MAX_FPS, MIN_FPS

MediaFormat = Literal["mp4", "mkv", "png", "png.zip", "exr.zip", "flac", "wav"]
# Of mp4. NVENC is the GPU's own: it leaves the cores alone, and gives equal frames other bytes.
VideoEncoder = Literal["libx264", "h264_nvenc"]
# What each holds beside or in place of frames; what it does not hold is refused, never dropped.
VIDEOS: tuple[MediaFormat, ...] = ("mp4", "mkv")
ZIPS: tuple[MediaFormat, ...] = ("png.zip", "exr.zip")
SOUNDS: tuple[MediaFormat, ...] = ("flac", "wav")


# Those that C2PA manifests are put into.
SIGNED: tuple[MediaFormat, ...] = ("mp4", "png")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Who says that a model made a clip. certificate: the chain, in PEM. private_key: the file of its key, on
    each machine that signs; its content travels nowhere.
    """

    certificate: str
    private_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """How clips are stored: mp4 is H.264 and AAC; mkv is lossless FFV1, with alpha, and FLAC; png holds one
    frame, with alpha; png.zip and exr.zip hold a file for each frame or layer, OpenEXR floats of any value;
    flac and wav hold sound alone.

    crf: H.264's quality, 0 (lossless) to 51; NVENC's quantiser. fps: None takes the row's or the model's
    native rate. audio: whether clips have their sound. encoder: of mp4. c2pa: signs mp4 and png. previews:
    whether a small still lies beside each clip.
    """

    format: MediaFormat = "mp4"
    crf: int = 18
    fps: float | None = None
    audio: bool = True
    encoder: VideoEncoder = "libx264"
    c2pa: Signing | None = None
    previews: bool = True

    def __post_init__(self) -> None:
        if self.format not in get_args(MediaFormat):
            raise JobError(
                f"media.format is {self.format!r}",
                "use mp4, mkv (lossless), png (images), png.zip (layers), exr.zip (HDR), flac or wav (sound)",
            )
        if type(self.crf) is not int or not 0 <= self.crf <= 51:
            raise JobError(f"media.crf is {self.crf!r}", "use a whole number from 0 (lossless) to 51, as 18")
        if self.fps is not None:
            exact_rate(self.fps)
        if self.encoder not in get_args(VideoEncoder):
            raise JobError(f"media.encoder is {self.encoder!r}", "use libx264 or h264_nvenc")
        if self.encoder != "libx264" and self.format != "mp4":
            raise JobError(
                f"media.encoder is {self.encoder}, and {self.format} is not encoded by it",
                "leave media.encoder out, or set media.format to mp4",
            )
        if self.c2pa is not None and self.format not in SIGNED:
            raise JobError(
                f"media.c2pa signs mp4 and png, and media.format is {self.format}",
                "leave media.c2pa out, or set media.format to mp4 or, for images, png",
            )
        if not self.audio and self.format in SOUNDS:
            raise JobError(
                f"media.audio is false, and {self.format} holds nothing but sound", "leave it at true"
            )

    @property
    def unrepeatable(self) -> str | None:
        """What gives equal frames other bytes, as records name it; None where nothing does."""
        causes = [self.encoder] * (self.encoder != "libx264") + ["c2pa"] * (self.c2pa is not None)
        return ", ".join(causes) or None

    @property
    def suffix(self) -> str:
        return f".{self.format}"


def format_of(name: str) -> MediaFormat:
    """Return the format of a file's name. Raises JobError for an ending that none has."""
    for format in get_args(MediaFormat):
        if name.lower().endswith(f".{format}"):
            return cast(MediaFormat, format)
    raise JobError(f"{name} ends like no format", f"use one of .{', .'.join(get_args(MediaFormat))}")


def exact_rate(fps: float) -> Fraction:
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not MIN_FPS <= fps <= MAX_FPS:
        raise JobError(f"fps is {fps!r}", "use a number from 0.1 to 1000, such as 16 or 23.976")
    return Fraction(fps).limit_denominator(1001)  # 1001: the denominator of the NTSC rates
