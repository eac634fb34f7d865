"""What job.json says of the marks of an output's clips, checked: it may be anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from framefleet.jobs.job.job_json import Sha256, Written
from framefleet.pipeline.errors import not_ours
from framefleet.pipeline.outputs.layout import CLAIM
from framefleet.plugins.marks.section import ProviderSection, WatermarkSection


class ClaimedSigning(Written):
    certificate_sha256: Sha256


class ClaimedWatermark(WatermarkSection):
    digest: Sha256 | None = None


class ClaimedMarks(Written):
    """The marks of clips. Whoever signs is not asked again."""

    sign: ClaimedSigning | None = None
    provider: ProviderSection | None = None
    watermark: list[ClaimedWatermark] = Field(default_factory=list)
    label: bool = False


_MARKS = TypeAdapter(ClaimedMarks)
_SIGNING = TypeAdapter(ClaimedSigning | None)


def claimed_marks(section: Any) -> ClaimedMarks:
    """Return what job.json says below `marks`. Raises JobError for what cannot be."""
    try:
        return _MARKS.validate_python({} if section is None else section)
    except ValidationError as error:
        raise not_ours(CLAIM, f"marks: {error.errors()[0]['msg']}") from None


def claimed_signing(job: Mapping[str, Any]) -> ClaimedSigning | None:
    """Return who signs by job.json, which said it below `media` in earlier versions."""
    sign, media = claimed_marks(job.get("marks")).sign, job.get("media")
    try:
        return sign or _SIGNING.validate_python(media.get("c2pa") if isinstance(media, Mapping) else None)
    except ValidationError:
        raise not_ours(CLAIM, "media.c2pa has no SHA-256 of a certificate") from None
