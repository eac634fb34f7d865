"""Pipeline classes measured on tiny models: measured.json, as `python -m tools.conformance` wrote it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

MEASURED = Path(__file__).with_name("measured.json")
Sound = Literal["none", "kept", "dropped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Mixed rows of one tiny model, rendered in batches and each alone by a plain call of diffusers."""

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
    """diffusers: the version. findings: by tiny model. classes: all of diffusers, by what they make.

    not_rendered: classes that were tried, and why they render nothing.
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


def write_measured(measured: Measurements) -> None:
    values = asdict(measured)
    values["findings"] = dict(sorted(values["findings"].items()))
    MEASURED.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    read_measured.cache_clear()
