"""The section `marks` of a job file, the marks of a job's clips, and the digests of watermarks' weights.

Light to import, since every job file is read with it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field

from framefleet.api.clips import MediaFormat
from framefleet.api.errors import JobError, ModelError
from framefleet.api.sections import Key, Section, as_list

_Text = Annotated[str, Field(min_length=1)]
WatermarkName = Literal["spread", "videoseal", "audioseal", "trustmark"]
# Whether others may train on a clip or mine it, with the values of CAWG's assertion.
TrainingUse = Literal["allowed", "notAllowed", "constrained"]
# Spread needs no weights, and marks frames and sound.
OF_FRAMES: tuple[WatermarkName, ...] = ("spread", "videoseal", "trustmark")
OF_SOUND: tuple[WatermarkName, ...] = ("spread", "audioseal")
# Formats with a place for C2PA manifests.
SIGNED: tuple[MediaFormat, ...] = ("mp4", "png", "webp", "gif", "flac", "wav")
# Formats with a place for the label; others get a file next to them.
LABELLED: tuple[MediaFormat, ...] = ("mp4", "png", "webp", "flac", "wav")
# GB 45438-2025, annex E: printable ASCII without space, quotation mark and backslash.
_CODE = re.compile(r"[!#-\[\]-~]+", re.ASCII)
MAX_WEIGHTS_BYTES, _MAX_FILES = 4 << 30, 64  # per watermark; the largest of the four libraries has 0.3 GB


class Signing(Section):
    """Signed C2PA manifests, which state in your name that a model made the clip."""

    certificate: _Text
    """File on this machine with your certificate and those of its issuers, in PEM."""
    private_key: _Text
    """File on every worker's machine with its key in PEM. The key is never transferred."""
    time_authority: _Text | None = None
    """URL of a service that stamps signatures with the time (RFC 3161). Default: no time stamp."""


class Provider(Section):
    """Provider of the system that made the clips, for manifests and labels."""

    name: _Text
    """Name of the provider."""
    url: _Text | None = None
    """URL of the provider, e.g. where its detector is."""
    system: _Text | None = None
    """Name of the system that makes the clips."""
    version: _Text | None = None
    """Version of that system."""
    code: _Text | None = None
    """Code of the provider in the Chinese label. Default: its name."""

    @property
    def label_code(self) -> str:
        return self.code or self.name

    def description(self) -> dict[str, str]:
        return self.model_dump(exclude={"code"}, exclude_none=True)


class WatermarkSection(Section):
    """A watermark with the first bits of the row_id, in the frames or the sound."""

    name: WatermarkName
    """spread needs no weights and marks frames and sound. videoseal and trustmark mark frames, audioseal
    sound."""
    weights: _Text | None = None
    """File or folder of its weights, on this machine and every worker's."""


class Watermark(WatermarkSection):
    """A watermark with its weights locked."""

    # Digest that the weights must have; None until they are read.
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class MarksSection(Section):
    """Marks that say that a model made the clip."""

    paths: ClassVar[tuple[Key, ...]] = (
        ("sign", "certificate"),
        ("sign", "private_key"),
        ("watermark", "weights"),
        ("watermark", "*", "weights"),
    )

    sign: Signing | None = None
    """Sign mp4, png, webp, gif, flac and wav. Their bytes are then not repeatable."""
    provider: Provider | None = None
    """Provider of the system."""
    watermark: Annotated[
        list[
            Annotated[
                WatermarkSection,
                BeforeValidator(
                    lambda value: {"name": value} if isinstance(value, str) else value,
                    json_schema_input_type=WatermarkName | WatermarkSection,
                ),
            ]
        ],
        BeforeValidator(
            as_list,
            json_schema_input_type=WatermarkName | WatermarkSection | list[WatermarkName | WatermarkSection],
        ),
    ] = Field(default_factory=list)
    """Watermark for frames and sound: spread, videoseal, audioseal, trustmark, or a list of two."""
    label: bool = False
    """Write the AIGC label of GB 45438-2025 and IPTC's digital source type into, or next to, each file."""
    training: TrainingUse = "notAllowed"
    """Whether others may train on the clips or mine them, as stated in signed manifests."""

    of_files: ClassVar[tuple[str, ...]] = ("sign", "label")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipMarks:
    """The marks of a job's clips. training: statement in signed manifests; None: no statement."""

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
                raise JobError("marks.label needs the provider's name", "set marks.provider.name")
            if not _CODE.fullmatch(self.provider.label_code):
                raise JobError(
                    f"the label cannot contain {self.provider.label_code!r}: GB 45438-2025 allows only "
                    "ASCII letters, digits and signs, without spaces and quotation marks",
                    "set marks.provider.code, e.g. to a registered code of 22 characters",
                )

    def __bool__(self) -> bool:
        return self.sign is not None or bool(self.watermarks) or self.label


assert {*OF_FRAMES, *OF_SOUND} == {*get_args(WatermarkName)}


def weights_digest(watermark: Watermark) -> str | None:
    """Return the SHA-256 of a weights file, or of the sorted lines `SHA-256  name` of a folder, or None.

    A job continues only with the same weights. Raises ModelError if they cannot be read.
    """
    return None if watermark.weights is None else joint_digest(weight_file_digests(watermark))


def weight_file_digests(watermark: Watermark) -> dict[str, str]:
    """Return the SHA-256 of each weights file, by name ("" for a single file). Raises ModelError."""
    path = Path(watermark.weights or "")
    try:
        files = {"": path} if path.is_file() else {file.name: file for file in path.iterdir()}
        files = {name: files[name] for name in sorted(files) if files[name].is_file()}
        if len(files) > _MAX_FILES or sum(file.stat().st_size for file in files.values()) > MAX_WEIGHTS_BYTES:
            raise ModelError(
                f"marks.watermark: {path} has more than {_MAX_FILES} files or {MAX_WEIGHTS_BYTES:,} bytes",
                "use the files that its authors publish, with their names",
            )
        digests = {}
        for name, file in files.items():
            with file.open("rb") as opened:
                digests[name] = hashlib.file_digest(opened, "sha256").hexdigest()
        return digests
    except OSError as error:
        raise ModelError(
            f"marks.watermark: the weights of {watermark.name} at {path} cannot be read: {error.strerror}",
            "use a file or folder that is on this machine and every worker's",
        ) from error


def joint_digest(digests: Mapping[str, str]) -> str:
    """Return the digest of weights from the digests of their files."""
    from framefleet.api.models import model_digest

    return digests.get("") or model_digest(digests)
