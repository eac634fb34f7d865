"""The file step for the section `marks`: watermarks frames and sound, labels the file and signs it.

It is the last of all steps, since it must sign the file as stored. The marks in an output's job.json are not
trusted, and are checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import pyarrow as pa
from pydantic import Field, ValidationError

from framefleet.api.clips import Audio, FileStep, Media, Pictures, StepInput
from framefleet.api.errors import JobError, not_ours
from framefleet.api.outputs import CLAIM
from framefleet.api.texts import canonical_json, public_url
from framefleet.jobs.job.job_json import Sha256, Written
from framefleet.pipeline.guards.mistakes import must_be
from framefleet.pipeline.outputs.media.picture_files import XMP_TAG
from framefleet.plugins.marks import manifest, settings
from framefleet.plugins.marks.file_marks import ingredients_of
from framefleet.plugins.marks.label import AIGC, aigc_label, with_chunks, with_xmp_box, xmp_packet
from framefleet.plugins.marks.spread import RELIABLE_PIXELS
from framefleet.plugins.marks.watermark import mark_frames, mark_sound, open_watermark


class ClaimedSigning(Written):
    certificate_sha256: Sha256


class ClaimedMarks(Written):
    """The marks of an output's clips, without settings for signing."""

    sign: ClaimedSigning | None = None
    provider: settings.Provider | None = None
    watermark: list[settings.Watermark] = Field(default_factory=list)
    label: bool = False


def claimed_marks(section: Any) -> ClaimedMarks:
    """Return the section `marks` of job.json. Raises JobError if it is invalid."""
    try:
        return ClaimedMarks.model_validate({} if section is None else section)
    except ValidationError as error:
        raise not_ours(CLAIM, f"marks: it must be {must_be(error.errors()[0])}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkStep(FileStep):
    marks: settings.ClipMarks

    order: ClassVar[int] = 1000
    # JSON: the marks of the clip and of its inputs.
    columns: ClassVar[pa.Schema] = pa.schema([("marks", pa.string())])

    @classmethod
    def open(cls, section: settings.MarksSection, *, folder: str | None) -> Self | None:
        watermarks = [settings.Watermark(**one.model_dump()) for one in section.watermark]
        marks = settings.ClipMarks(
            sign=manifest.open_signing(section.sign) if section.sign else None,
            provider=section.provider,
            watermarks=tuple(watermarks),
            label=section.label,
            training=section.training if section.sign else None,
        )
        locked = tuple(one.model_copy(update={"digest": settings.weights_digest(one)}) for one in watermarks)
        return cls(marks=replace(marks, watermarks=locked)) if marks else None

    @property
    def unrepeatable(self) -> str | None:
        return "c2pa" if self.marks.sign else None

    @property
    def labels(self) -> tuple[str, ...]:
        signing = self.marks.sign
        stamped = " with a time stamp" if signing and signing.time_authority else ""
        watermarks = [f"watermark {one.name}" for one in self.marks.watermarks]
        label = ["AIGC and IPTC label"] * self.marks.label
        return (*[f"C2PA manifest{stamped}"] * (signing is not None), *watermarks, *label)

    def check(self, media: Media) -> None:
        if self.marks.sign and media.format not in settings.SIGNED:
            problem = f"marks.sign signs {', '.join(settings.SIGNED)}, but media.format is {media.format}"
            raise JobError(problem, "leave marks.sign out, or set media.format to mp4 or, for images, png")
        of_frames = [one.name for one in self.marks.watermarks if one.name in settings.OF_FRAMES]
        if of_frames and media.format == "exr.zip":
            problem = f"marks.watermark: {of_frames[0]} marks 8-bit frames, but media.format is exr.zip"
            raise JobError(problem, "leave marks.watermark out, or choose another media.format")

    def note_of_size(self, height: int, width: int) -> str | None:
        if height * width >= RELIABLE_PIXELS or "spread" not in [one.name for one in self.marks.watermarks]:
            return None
        problem = f"marks.watermark: spread can often not be read from clips of {height} x {width}"
        return f"{problem}; render at least 192 x 256 pixels, or use `marks.sign`"

    def written(self, section: dict[str, Any]) -> dict[str, Any]:
        values = {**section, "watermark": [one.model_dump() for one in self.marks.watermarks]}
        if signing := self.marks.sign:
            values["sign"] = {"certificate_sha256": manifest.certificate_sha256(signing)}
            if signing.time_authority:
                values["sign"]["time_authority"] = public_url(signing.time_authority)
        return values

    @classmethod
    def decisive(cls, section: Any) -> dict[str, Any]:
        """Return the deciding settings. Certificates may be renewed, and weights moved."""
        claimed = claimed_marks(section)
        return {
            "sign": claimed.sign is not None,
            "provider": claimed.provider.model_dump() if claimed.provider else None,
            "watermark": [[one.name, one.digest] for one in claimed.watermark],
            "label": claimed.label,
        }

    @classmethod
    def again(cls, section: Any, *, allow_pickle: bool) -> Self | None:
        claimed = claimed_marks(section)
        for one in claimed.watermark:
            if one.weights is not None and not allow_pickle:
                raise JobError(
                    f"its watermark {one.name} may contain pickles, which can run code when they are opened",
                    "if you trust its source, add --allow-pickle",
                )
        marks = settings.ClipMarks(
            provider=claimed.provider, watermarks=tuple(claimed.watermark), label=claimed.label
        )
        return cls(marks=marks) if marks else None

    def prepare(self) -> None:
        if self.marks.sign is not None:
            manifest.check_signing(self.marks.sign)
        for watermark in self.marks.watermarks:
            open_watermark(watermark)

    def frames(self, frames: Pictures, of: StepInput) -> Pictures:
        return mark_frames(frames, self.marks.watermarks, of.clip.row_id, device=_device(of))

    def sound(self, audio: Audio, of: StepInput) -> Audio:
        return mark_sound(audio, self.marks.watermarks, of.clip.row_id, device=_device(of))

    def tags(self, of: StepInput) -> dict[str, str]:
        provider, row_id = self._label_provider, of.clip.row_id
        if provider and of.media.format in ("mp4", "flac"):
            return {AIGC: aigc_label(provider, row_id)}
        if provider and of.media.format in ("png", "webp"):
            return {XMP_TAG: xmp_packet(provider, row_id).decode()}
        return {}

    def file(self, content: bytes, of: StepInput) -> bytes:
        provider, row_id, format = self._label_provider, of.clip.row_id, of.media.format
        of.values["marks"] = self._description(of)
        if provider and format not in settings.LABELLED:
            of.labels.append(xmp_packet(provider, row_id))
        if provider and format in ("mp4", "wav"):
            iptc = xmp_packet(provider, row_id, aigc=False)
            label = aigc_label(provider, row_id).encode()
            is_mp4 = format == "mp4"
            content = with_xmp_box(content, iptc) if is_mp4 else with_chunks(content, AIGC=label, _PMX=iptc)
        if not self.marks.sign:
            return content
        # The manifest says what made the clip.
        clip, title = of.clip, f"{of.clip.row_id}{of.media.suffix}"
        made = {"row_id": clip.row_id, "model": clip.model, "model_digest": clip.model_digest}
        made |= {"license": clip.license} if clip.license else {}
        return manifest.sign(content, marks=self.marks, title=title, made=made, inputs=_inputs(of))

    def _description(self, of: StepInput) -> str:
        marks, inputs = self.marks, _inputs(of)
        description: dict[str, Any] = {"c2pa": manifest.certificate_sha256(marks.sign)} if marks.sign else {}
        description |= {"watermarks": [one.name for one in marks.watermarks]} if marks.watermarks else {}
        description |= {"label": True} if marks.label else {}
        description |= {"inputs": [one.description() for one in inputs]} if inputs else {}
        return canonical_json(description)

    @property
    def _label_provider(self) -> settings.Provider | None:
        """The provider, if a label is wanted."""
        return self.marks.provider if self.marks.label else None


def _inputs(of: StepInput) -> Sequence[manifest.Ingredient]:
    """Return the row's input files with their marks, which are read once."""
    if MarkStep not in of.notes:
        of.notes[MarkStep] = () if of.read is None else ingredients_of(of.clip.request, of.read)
    return of.notes[MarkStep]


def _device(of: StepInput) -> str:
    """Return the model's device, which is also used to mark frames."""
    return str(of.clip.environment.get("device", "cpu"))
