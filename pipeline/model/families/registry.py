"""All families and presets, and what a pipeline's class name and configs find among them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from framefleet import doors
from framefleet.pipeline.model.families.family import Family, Preset
from framefleet.pipeline.model.families.image import IMAGE_FAMILIES
from framefleet.pipeline.model.families.video import VIDEO_FAMILIES

FROM_IMAGE_TO_IMAGE = "DynamiCrafter, Open-Sora, or a Wan folder for first and last frames"
WITH_LAST_IMAGE = "a first-and-last-frame model, as Wan2.1-FLF2V"
IMAGES_FROM_TEXT = "black-forest-labs/FLUX.1-dev"
VIDEOS_FROM_TEXT = "a VideoCrafter2 folder"
_NOT_INHERITED = ("note", "download_gb")
FAMILIES = (*VIDEO_FAMILIES, *IMAGE_FAMILIES, *doors.families())  # in the order in which messages list them
_NONE = Family(prefix="")  # the factors of its autoencoder and denoiser, no guess at its default size


def _read_presets() -> Iterator[Preset]:
    """Yield what presets.toml holds, each with the rate of its family."""
    written = tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))
    by_name = {preset["name"]: preset for presets in written.values() for preset in presets}
    rates = {family.prefix: family.fps for family in FAMILIES}
    for prefix, presets in written.items():
        for preset in presets:
            yield Preset(**{"fps": rates[prefix]} | _inherited(preset, by_name))


def _inherited(preset: Mapping[str, Any], named: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a preset says, and what the one that it is like says besides."""
    base = _inherited(named[preset["like"]], named) if "like" in preset else {}
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in preset.items()}
    own.pop("like", None)
    return {key: value for key, value in base.items() if key not in _NOT_INHERITED} | own


PRESETS = tuple(_read_presets())  # in the order in which they are tried, and pages list them


def family_of(class_name: str) -> Family:
    """Return the family with the longest prefix of `class_name`, or the one of a class that nobody listed."""
    matches = [family for family in FAMILIES if class_name.startswith(family.prefix)]
    return max(matches, key=lambda family: len(family.prefix), default=_NONE)


def preset_of(class_name: str, configs: Mapping[str, Mapping[str, Any]]) -> Preset | None:
    """Return the preset of a model, or None. configs: by component, and model_index.json as "index"."""
    return next((preset for preset in PRESETS if preset.fits(class_name, configs)), None)
