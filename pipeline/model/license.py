"""From a model's card, its preset or its job to its license, and to what known licenses say.

Facts, no advice: of each known license the terms that people trip over, and the text they are from. What
is not here may still be in that text. Of a license that is not listed, nothing is said but its name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from framefleet.pipeline.errors import UserError
from framefleet.pipeline.model.families.family import Preset
from framefleet.pipeline.model.sources.folder_source import Source

log = logging.getLogger(__name__)

_CARD, _CARD_BYTES, _MAX_NAME = "README.md", 1 << 16, 80
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_ENTRY = re.compile(
    r"^(license|license_name|license_link):[ \t]*[\"']?([^\"'\n]+?)[\"']?[ \t]*$", re.MULTILINE
)
_SEE_CARD = ("see its card", "the adapter's and the base model's")  # of presets that name none
_UNKNOWN = "unknown"
Says = Literal["job", "card", "preset", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a license says on four matters; "" where it is not quoted here. text: where it stands."""

    text: str
    commercial: str = ""
    territory: str = ""
    attribution: str = ""
    training: str = ""

    def unusual(self) -> list[str]:
        return [term for term in (self.territory, self.commercial, self.training, self.attribution) if term]


@dataclass(frozen=True, slots=True, kw_only=True)
class License:
    """A model's license. name: as its source has it. source: who says so."""

    name: str
    source: Says

    @property
    def terms(self) -> Terms | None:
        """What is known of it; None for one that is not listed."""
        name = self.name.lower()
        return next((terms for pattern, terms in TERMS.items() if re.fullmatch(pattern, name)), None)

    def __str__(self) -> str:
        """Return it in one line, with its unusual terms."""
        if self.source == "unknown":
            return "unknown: neither the model's card nor a preset says; set `model.license`"
        said = f"{self.name} ({'preset' if self.source == 'preset' else f'the {self.source} says so'})"
        terms = self.terms
        if terms is None:
            return f"{said}; its terms are not listed here: read them before you use the clips"
        unusual = terms.unusual()
        return f"{said}: {'; '.join(unusual)} ({terms.text})" if unusual else said


_HUB = "https://huggingface.co"
# By the names that cards and presets use, in lower case. Each text was read at the place that it names.
TERMS: Mapping[str, Terms] = {
    r"apache-2\.0|mit|bsd-3-clause": Terms(text="https://spdx.org/licenses"),
    r"minimax-h3(-community)?(-license)?|minimax h3 community license.*": Terms(
        text=f"{_HUB}/MiniMaxAI/MiniMax-H3/raw/main/LICENSE, of 2 August 2026",
        territory="not for use, outputs included, in the EU, the UK, South Korea and the USA",
        commercial="above $20M of yearly revenue, only with MiniMax's authorization",
        attribution='commercial products display "MiniMax H3"',
        training="outputs may not train other models",
    ),
    r"tencent-hunyuan(-.*)?|tencent hunyuan community.*": Terms(
        text=f"{_HUB}/tencent/HunyuanVideo/blob/main/LICENSE",
        territory="does not apply in the EU, the UK and South Korea",
        commercial="above 100 million monthly users, only with Tencent's license",
        training="outputs may not improve other models",
    ),
    r"(stabilityai-ai|stable-video-diffusion)-community": Terms(
        text="Stability AI Community License, of 5 July 2024",
        commercial="free below $1M of annual revenue",
        attribution='products display "Powered by Stability AI"',
        training="outputs may not train foundational generative models",
    ),
    r"sai-nc-community": Terms(
        text=f"{_HUB}/stabilityai/sdxl-turbo/blob/main/LICENSE.md", commercial="no commercial use"
    ),
    r"flux-1-dev-non-commercial(-license)?|flux-non-commercial(-license)?|flux-dev-non-commercial.*": Terms(
        text=f"{_HUB}/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
        commercial="the model is for non-commercial use, its outputs for any use not prohibited",
        training="outputs may not train competing models",
    ),
    r"cogvideox(-.*)?": Terms(
        text=f"{_HUB}/THUDM/CogVideoX-5b/blob/main/LICENSE",
        commercial="commercial use needs a registration, and above 1 million visits a month another license",
    ),
    r"ltx-2(\.x)?(-community)?(-license.*)?|ltx-2's own.*": Terms(
        text="https://github.com/Lightricks/LTX-2/blob/main/LICENSE",
        commercial="from $10M of annual revenue on, only with a license of Lightricks",
    ),
    r"creativeml-openrail-m|openrail\+\+|openrail": Terms(
        text=f"{_HUB}/spaces/CompVis/stable-diffusion-license",
        commercial="the uses listed in its attachment A are prohibited",
    ),
}


def license_of(source: Source, preset: Preset | None, given: str | None) -> License:
    """Return a model's license: as the job says, else as its card does, else as its preset does."""
    if given:
        return License(name=given, source="job")
    if name := _on_card(source):
        return License(name=name, source="card")
    if preset and preset.licence not in _SEE_CARD:
        return License(name=preset.licence, source="preset")
    return License(name=_UNKNOWN, source="unknown")


def _on_card(source: Source) -> str | None:
    """Return what the metadata of a model's card calls its license."""
    if _CARD not in source.files:
        return None
    try:
        card = source.read(_CARD, _CARD_BYTES).decode("utf-8", "replace").replace("\r\n", "\n")
    except UserError as error:  # its weights may be here, and its card out of reach
        log.info("the card of %s cannot be read: %s", source.name, error)
        return None
    head = _FRONT_MATTER.match(card)
    found = dict(_ENTRY.findall(head[1])) if head else {}
    name = found.get("license_name") if found.get("license") in (None, "other") else found["license"]
    shown = " ".join((name or "").split())[:_MAX_NAME]
    return shown if shown.isprintable() and shown else None
