"""Look up the terms of known licenses.

Facts, not advice: terms that people often overlook, and a link to the license. A license may have other terms
that are not listed. For unknown licenses, only the name is shown.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from framefleet.pipeline.model.license import License

_KNOWN = Path(__file__).parent / "licenses.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Terms of a license on four topics; "" if not listed here."""

    text: str  # where to read it
    commercial: str = ""
    territory: str = ""
    attribution: str = ""
    training: str = ""

    def unusual(self) -> list[str]:
        return [term for term in (self.territory, self.commercial, self.training, self.attribution) if term]


def terms_of(name: str) -> Terms | None:
    name = name.lower()
    return next((terms for pattern, terms in _known_terms().items() if re.fullmatch(pattern, name)), None)


def license_line(license: License, key: str = "model.license") -> str:
    """Return a license in one line, with its unusual terms. key: of the job, which sets it."""
    if license.source == "unknown":
        published = ""
        if license.usual:
            published = f"; weights published for its class are licensed under {license.usual}"
            others = terms_of(license.usual)
            published += f": {'; '.join(others.unusual())}" if others and others.unusual() else ""
        return f"unknown: neither the model's card nor a preset says{published}; set `{key}`"
    says = "preset" if license.source == "preset" else f"according to the {license.source}"
    source = f"{license.name} ({says})"
    terms = terms_of(license.name)
    if terms is None:
        return f"{source}; its terms are not listed here: read them before you use the clips"
    unusual = terms.unusual()
    return f"{source}: {'; '.join(unusual)} ({terms.text})" if unusual else source


@cache
def _known_terms() -> Mapping[str, Terms]:
    """Return the terms of known licenses, by a pattern of their names in lower case."""
    written = tomllib.loads(_KNOWN.read_text(encoding="utf-8"))
    return {pattern: Terms(**terms) for pattern, terms in written.items()}
