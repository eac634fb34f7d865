"""Describe presets and measured classes, for `framefleet model` and docs/reference/models.md."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from framefleet.api.errors import count_text
from framefleet.api.families import Preset
from framefleet.api.models import FRAME_PARAMETERS
from framefleet.plugins.memory.footprint import Footprint, Way
from framefleet.plugins.memory.memory import ways_for

MEASURED = Path(__file__).with_name("measured.json")
Sound = Literal["none", "kept", "dropped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Results of rendering mixed rows of a tiny model in batches, compared with plain calls of diffusers."""

    class_name: str
    makes: str  # what becomes of what, "text to video"
    rows: int
    equal: int  # of how many rows frames and sound were those of the plain calls
    mean_batch: float  # rows of a forward
    sound: Sound  # that the plain calls make
    workers: int  # of the fleet; 0 if one process rendered all rows
    why: str = ""  # what is not equal, not shared or not supported, and the reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """diffusers: its version. findings: by tiny model. classes: all of diffusers, by what they make.

    not_rendered: why some classes could not be rendered.
    """

    diffusers: str
    findings: Mapping[str, Finding]
    classes: Mapping[str, list[str]]
    not_rendered: Mapping[str, str]

    def of_class(self, class_name: str) -> list[Finding]:
        return [finding for finding in self.findings.values() if finding.class_name == class_name]


@functools.cache
def read_measured() -> Measurements:
    values = json.loads(MEASURED.read_text(encoding="utf-8"))
    findings = {name: Finding(**finding) for name, finding in values["findings"].items()}
    return Measurements(**values | {"findings": findings})


# Names for what classes make.
KINDS = {
    "video": "videos",
    "image": "images",
    "sound": "sound alone",
    "other": "text, embeddings, maps, or unknown",
    "deprecated": "deprecated by diffusers",
}


def class_states(measured: Measurements) -> Iterator[tuple[str, str, str]]:
    """Yield every class of diffusers, what it makes, and whether it was measured, refused or not tried."""
    for kind, names in measured.classes.items():
        for name in names:
            findings, why = measured.of_class(name), measured.not_rendered.get(name)
            state = in_company(findings) if findings else f"refused: {why}" if why else "not tried"
            yield name, KINDS[kind], state


def in_company(findings: Sequence[Finding]) -> str:
    """Describe whether rows of a class are bit-exact in batches, and how many share a forward."""
    rows, equal = sum(finding.rows for finding in findings), sum(finding.equal for finding in findings)
    exact = "batches are bit-exact" if equal == rows else f"{equal} of {count_text(rows, 'row')} bit-exact"
    return f"{exact}; on average {shared(findings)} rows share a forward"


def shared(findings: Sequence[Finding]) -> str:
    """Return how many rows share a forward, as the range of averages of tiny models."""
    batches = [finding.mean_batch for finding in findings]
    least, most = f"{min(batches):.1f}", f"{max(batches):.1f}"
    return least if least == most else f"{least} to {most}"


def makes(preset: Preset) -> str:
    """Return e.g. "text, video to video"."""
    return f"{', '.join(preset.inputs)} to {'video' if preset.fps else 'image'}"


def size_text(preset: Preset) -> str:
    return f"{preset.size[0]} x {preset.size[1]}" if preset.size else "the picture's"


def frames_text(preset: Preset) -> str:
    count = next((preset.arguments[name] for name in FRAME_PARAMETERS if name in preset.arguments), None)
    return f"{count or 'any'} at {preset.fps:g} fps" if preset.fps else ""


def in_words(preset: Preset) -> str:
    """Return the dtypes, e.g. "bf16, vae fp32"."""
    return ", ".join([preset.dtype, *(f"{component} {name}" for component, name in preset.dtypes.items())])


def fitting(count: Callable[[Way], Footprint], card_gb: float) -> str:
    """Return the offload that fits, in one word. count: returns the memory of a row for options."""
    way = next(ways_for(count, card_gb), None)
    if way is None:
        return "no"
    return ("all" if way.offload == "none" else way.offload) + ", tiled" * way.vae_tiling
