"""The section `marks` of a job file. Imports nothing heavy: each job file is read with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from framefleet.jobs.job.section import Key, Section, as_list
from framefleet.plugins.marks.settings import TrainingUse, WatermarkName

_Text = Annotated[str, Field(min_length=1)]


def _as_mapping(watermark: object) -> object:
    return {"name": watermark} if isinstance(watermark, str) else watermark


class SigningSection(Section):
    """Signed C2PA manifests, which state in your name that a model made the clip."""

    certificate: _Text
    """File on this machine with your certificate in PEM, and those of its issuers."""
    private_key: _Text
    """File on every worker's machine with its key in PEM. The key is never transferred."""
    time_authority: _Text | None = None
    """URL of a service that stamps signatures with the time (RFC 3161). Default: no time stamp."""


class ProviderSection(Section):
    """Who provides the system that made the clips, for manifests and labels."""

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


class WatermarkSection(Section):
    """A watermark, which carries the first bits of the row_id in the frames or the sound."""

    name: WatermarkName
    """spread needs no weights and marks frames and sound. videoseal and trustmark mark frames, audioseal
    sound."""
    weights: _Text | None = None
    """File or folder of its weights, on this machine and every worker's."""


class MarksSection(Section):
    """Marks that say that a model made the clip."""

    paths: ClassVar[tuple[Key, ...]] = (
        ("sign", "certificate"),
        ("sign", "private_key"),
        ("watermark", "weights"),
        ("watermark", "*", "weights"),
    )
    record_columns: ClassVar[Mapping[str, str]] = {"marks": "string"}

    sign: SigningSection | None = None
    """Sign mp4, png, webp, gif, flac and wav. Their bytes are then not repeatable."""
    provider: ProviderSection | None = None
    """Who provides the system."""
    watermark: Annotated[
        list[
            Annotated[
                WatermarkSection,
                BeforeValidator(_as_mapping, json_schema_input_type=WatermarkName | WatermarkSection),
            ]
        ],
        BeforeValidator(
            as_list,
            json_schema_input_type=WatermarkName | WatermarkSection | list[WatermarkName | WatermarkSection],
        ),
    ] = Field(default_factory=list)
    """Watermark of the frames and the sound: spread, videoseal, audioseal, trustmark, or a list of two."""
    label: bool = False
    """Write the AIGC label of GB 45438-2025 and IPTC's digital source type into each file, or next to it."""
    training: TrainingUse = "notAllowed"
    """Whether others may train on the clips or mine them, as signed manifests state it."""
