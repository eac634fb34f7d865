"""Find a model's license: in the job, the model's card, or its preset."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Literal

from framefleet.pipeline.errors import UserError
from framefleet.pipeline.model.families.family import Preset
from framefleet.pipeline.model.sources.folder_source import Source

log = logging.getLogger(__name__)

_CARD, _CARD_BYTES, _MAX_NAME = "README.md", 1 << 16, 80
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
# Possessive: a line of blanks is read once.
_ENTRY = re.compile(
    r"^(license|license_name|license_link):[ \t]*+[\"']?([^\"'\n]++)[\"']?[ \t]*+$", re.MULTILINE
)
_SEE_CARD = ("see its card", "the adapter's and the base model's")  # in presets that name no license
_UNKNOWN = "unknown"
Says = Literal["job", "card", "preset", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class License:
    name: str  # as its source writes it
    source: Says
    usual: str = ""  # if unknown: the license of all published weights of the model's class


def license_of(source: Source, preset: Preset | None, of_job: str | None, *, usual: str = "") -> License:
    """Return a model's license from the job, else its card, else its preset. usual: see `License`."""
    if of_job:
        return License(name=of_job, source="job")
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
    except UserError as error:  # the weights may be on this machine, but the card unreachable
        log.info("the card of %s cannot be read: %s", source.name, error)
        return None
    head = _FRONT_MATTER.match(card)
    entries = {key: value.strip() for key, value in _ENTRY.findall(head[1])} if head else {}
    name = entries.get("license_name") if entries.get("license") in (None, "other") else entries["license"]
    shown = " ".join((name or "").split())[:_MAX_NAME]
    return shown if shown.isprintable() and shown else None
