"""From a model's configs to what presets.toml knows of it: native values, dtypes, memory, licence."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framefleet.pipeline.model.specs.dtypes import DTypeName
from framefleet.pipeline.model.specs.signature import Scalar

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One entry of presets.toml, which explains the fields."""

    name: str
    models: tuple[str, ...]
    inputs: tuple[str, ...]
    pipelines: tuple[str, ...]
    match: Mapping[str, Mapping[str, Any]]
    arguments: Mapping[str, Scalar]
    parameters: Mapping[str, int]
    held: Mapping[str, int]
    token: tuple[int, int, int]
    width: int
    licence: str
    joined: bool = False
    fps: float | None = None
    dtype: DTypeName = "bf16"
    dtypes: Mapping[str, DTypeName] = field(default_factory=dict)
    download_gb: float | None = None
    scheduler: str = ""
    note: str = ""

    def fits(self, class_name: str, configs: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether a model of this class with these configs is this one. configs: with `index`."""
        return class_name in self.pipelines and all(
            configs.get(component, {}).get(key) == value
            for component, values in self.match.items()
            for key, value in values.items()
        )

    def weights_gb(self) -> dict[str, float]:
        """Return what each component's weights take on a GPU with `dtype: auto`."""
        return self._gb(self.parameters)

    def held_gb(self) -> dict[str, float]:
        """Return what of each component's weights is on a GPU at once with `offload: group`."""
        return self._gb({**self.parameters, **self.held})

    def _gb(self, parameters: Mapping[str, int]) -> dict[str, float]:
        return {
            component: millions * BYTES[self.dtypes.get(component, self.dtype)] / 1000
            for component, millions in parameters.items()
        }


@functools.cache
def presets() -> tuple[Preset, ...]:
    """Return all presets, in the order in which they are tried."""
    entries = tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))["preset"]
    lists = ("models", "inputs", "pipelines", "token")
    return tuple(Preset(**{**entry, **{key: tuple(entry[key]) for key in lists}}) for entry in entries)


def preset_of(class_name: str, configs: Mapping[str, Mapping[str, Any]]) -> Preset | None:
    """Return the preset of a model, or None. configs: by component, and model_index.json as "index"."""
    return next((preset for preset in presets() if preset.fits(class_name, configs)), None)
