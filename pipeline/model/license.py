"""From a model's card, its preset or its job to its license, and to what known licenses say.

Facts, no advice: of each known license the terms that people trip over, and the text they are from. What
is not here may still be in that text. Of a license that is not listed, nothing is said but its name.
"""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
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
_KNOWN = Path(__file__).parent / "families" / "licenses.toml"
Says = Literal["job", "card", "preset", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a license says on four matters; "" where it is not quoted here."""

    text: str  # where it stands
    commercial: str = ""
    territory: str = ""
    attribution: str = ""
    training: str = ""

    def unusual(self) -> list[str]:
        return [term for term in (self.territory, self.commercial, self.training, self.attribution) if term]


@dataclass(frozen=True, slots=True, kw_only=True)
class License:
    name: str  # as its source has it
    source: Says
    usual: str = ""  # of one that is not known: that of all weights that are published for the model's class

    @property
    def terms(self) -> Terms | None:
        """What is known of it; None for one that is not listed."""
        name = self.name.lower()
        return next((terms for pattern, terms in known_terms().items() if re.fullmatch(pattern, name)), None)

    def __str__(self) -> str:
        """Return it in one line, with its unusual terms."""
        if self.source == "unknown":
            published = ""
            if self.usual:
                published = f"; weights published for its class are licensed under {self.usual}"
                others = License(name=self.usual, source="card").terms
                published += f": {'; '.join(others.unusual())}" if others and others.unusual() else ""
            return f"unknown: neither the model's card nor a preset says{published}; set `model.license`"
        source = f"{self.name} ({'preset' if self.source == 'preset' else f'the {self.source} says so'})"
        terms = self.terms
        if terms is None:
            return f"{source}; its terms are not listed here: read them before you use the clips"
        unusual = terms.unusual()
        return f"{source}: {'; '.join(unusual)} ({terms.text})" if unusual else source


@cache
def known_terms() -> Mapping[str, Terms]:
    """Return the terms of known licenses, by a pattern of their names in lower case."""
    written = tomllib.loads(_KNOWN.read_text(encoding="utf-8"))
    return {pattern: Terms(**terms) for pattern, terms in written.items()}


def license_of(source: Source, preset: Preset | None, given: str | None, *, usual: str = "") -> License:
    """Return a model's license: as the job says, else its card, else its preset. usual: see `License`."""
    if given:
        return License(name=given, source="job")
    if name := _on_card(source):
        return License(name=name, source="card")
    if preset and preset.license not in _SEE_CARD:
        return License(name=preset.license, source="preset")
    return License(name=_UNKNOWN, source="unknown", usual=usual)


def _on_card(source: Source) -> str | None:
    if _CARD not in source.files:
        return None
    try:
        card = source.read(_CARD, _CARD_BYTES).decode("utf-8", "replace").replace("\r\n", "\n")
    except UserError as error:  # its weights may be here, and its card out of reach
        log.info("the card of %s cannot be read: %s", source.name, error)
        return None
    head = _FRONT_MATTER.match(card)
    entries = dict(_ENTRY.findall(head[1])) if head else {}
    name = entries.get("license_name") if entries.get("license") in (None, "other") else entries["license"]
    shown = " ".join((name or "").split())[:_MAX_NAME]
    return shown if shown.isprintable() and shown else None
