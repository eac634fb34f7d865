"""What a job says about the marks that its clips carry, and the weights it locks. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from framefleet.pipeline.errors import JobError, ModelError
from framefleet.pipeline.outputs.media.media_settings import MediaFormat

WatermarkName = Literal["spread", "videoseal", "audioseal", "trustmark"]
# Whether others may train on a clip or mine it, in the words of CAWG's assertion.
TrainingUse = Literal["allowed", "notAllowed", "constrained"]
# Spread needs no weights, and marks both.
OF_FRAMES: tuple[WatermarkName, ...] = ("spread", "videoseal", "trustmark")
OF_SOUND: tuple[WatermarkName, ...] = ("spread", "audioseal")
# Those that C2PA manifests are put into.
SIGNED: tuple[MediaFormat, ...] = ("mp4", "png", "webp", "gif", "flac", "wav")
# Those that have a place of their own for the label; next to others lies a file.
LABELLED: tuple[MediaFormat, ...] = ("mp4", "png", "webp", "flac", "wav")
# GB 45438-2025, annex E: printable ASCII without a space, a quotation mark or a backslash.
_CODE = re.compile(r"[!#-\[\]-~]+", re.ASCII)
MAX_WEIGHTS_BYTES, _MAX_FILES = 4 << 30, 64  # of one watermark; the largest of the four libraries has 0.3 GB


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Who says that a model made a clip. certificate: the chain, in PEM. private_key: the file of its key, on
    each machine that signs; its content travels nowhere. time_authority: the URL of an RFC 3161 service.
    """

    certificate: str
    private_key: str
    time_authority: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Who is responsible for the system that made a clip. code: what the Chinese label calls it."""

    name: str
    url: str | None = None
    system: str | None = None
    version: str | None = None
    code: str | None = None

    @property
    def label_code(self) -> str:
        return self.code or self.name

    def description(self) -> dict[str, str]:
        """Return what manifests say of it."""
        description = {"name": self.name, "url": self.url, "system": self.system, "version": self.version}
        return {name: text for name, text in description.items() if text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermark:
    """weights: a file or folder on each machine; digest: what it must be, None until it was read."""

    name: WatermarkName
    weights: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipMarks:
    """The marks of a job's clips. training: what signed manifests say of it; None: nothing."""

    sign: Signing | None = None
    provider: Provider | None = None
    watermarks: tuple[Watermark, ...] = ()
    label: bool = False
    training: TrainingUse | None = None

    def __post_init__(self) -> None:
        for of in (OF_FRAMES, OF_SOUND):
            both = [one.name for one in self.watermarks if one.name in of]
            if len(both) > 1:
                part = "frames" if of is OF_FRAMES else "sound"
                raise JobError(f"marks.watermark: {' and '.join(both)} both mark {part}", "choose one")
        for one in self.watermarks:
            if (one.weights is None) != (one.name == "spread"):
                has = "needs no weights" if one.weights else "needs weights"
                fix = "leave them out" if one.weights else f"write {{name: {one.name}, weights: FILE}}"
                raise JobError(f"marks.watermark: {one.name} {has}", fix)
        if self.label:
            if self.provider is None:
                raise JobError("marks.label needs to say who made a clip", "set marks.provider.name")
            if not _CODE.fullmatch(self.provider.label_code):
                raise JobError(
                    f"the label cannot say {self.provider.label_code!r}: GB 45438-2025 takes letters, "
                    "digits and signs of ASCII without spaces and quotation marks",
                    "set marks.provider.code, such as a registered code of 22 characters",
                )

    def __bool__(self) -> bool:
        return self.sign is not None or bool(self.watermarks) or self.label

    def names(self) -> tuple[str, ...]:
        """Return what a clip carries, for people."""
        signed = ["C2PA manifest"] * (self.sign is not None)
        if self.sign and self.sign.time_authority:
            signed = ["C2PA manifest with a time stamp"]
        watermarks = [f"watermark {one.name}" for one in self.watermarks]
        return (*signed, *watermarks, *["AIGC and IPTC label"] * self.label)


NO_MARKS = ClipMarks()
assert {*OF_FRAMES, *OF_SOUND} == {*get_args(WatermarkName)}


def weights_digest(watermark: Watermark) -> str | None:
    """Return the SHA-256 of a file, or that over the sorted lines `SHA-256  name` of a folder; None without.

    It locks them: a job continues only with the same ones. Raises ModelError where they cannot be read.
    """
    return None if watermark.weights is None else joint_digest(weight_file_digests(watermark))


def weight_file_digests(watermark: Watermark) -> dict[str, str]:
    """Return the SHA-256 of each file of the weights, by name; of a single file, by "". Raises ModelError."""
    path = Path(watermark.weights or "")
    try:
        files = {"": path} if path.is_file() else {file.name: file for file in path.iterdir()}
        files = {name: files[name] for name in sorted(files) if files[name].is_file()}
        if len(files) > _MAX_FILES or sum(file.stat().st_size for file in files.values()) > MAX_WEIGHTS_BYTES:
            raise ModelError(
                f"marks.watermark: {path} has more than {_MAX_FILES} files or {MAX_WEIGHTS_BYTES:,} bytes",
                "give the files that its authors publish; docs/marks.md names them",
            )
        return {name: _sha256(file) for name, file in files.items()}
    except OSError as error:
        raise ModelError(
            f"marks.watermark: the weights of {watermark.name} at {path} cannot be read: {error.strerror}",
            "give a file or folder that is on this machine and every worker's",
        ) from error


def joint_digest(digests: Mapping[str, str]) -> str:
    """Return the digest of weights from those of their files."""
    if "" in digests:
        return digests[""]
    return hashlib.sha256("".join(f"{digests[name]}  {name}\n" for name in digests).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
