"""What is known of one released model: native values, dtypes, memory, licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from framefleet.pipeline.model.specs.dtypes import DTypeName
from framefleet.pipeline.model.specs.signature import Scalar

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One model, known by its configs. Narrower ones come first: the first that fits a folder counts.

    Sources are the signatures and docstrings of diffusers 0.42, its documentation, the model cards, and where
    named the authors' code. Size multiples and frame steps come from the configs, see specs/geometry.py.

    name: what `framefleet model info` and `list` call it. models: of the hub.
    inputs: what a clip starts from.
    pipelines: classes that it is recognised with, as the index names them.
    match: values in the components' configs, and ("index") in model_index.json, that tell it from others.
    arguments: native values of the call, used where neither row nor job gives one.
    parameters: in millions, counted on the libraries' classes built from the published configs.
    held: in millions, counted alike: of components that `offload: group` moves, the most that is on the GPU
        at once (the largest block and all that is in no block; of text encoders the largest layer).
    token: frames, height, width in pixels of one token of the denoiser (of UNets: of one latent place).
    width: channels of a token. joined: both prompts of guidance are in one forward.
    fps: as trained, where that is not the family's; in `registry.PRESETS` always. None for images.
    dtype: of `dtype: auto` on a GPU. dtypes: of the components that differ.
    download_gb: as the hub shows it, or summed over its files; None where neither could be checked.
    scheduler: as shipped, where that could be checked. note: what else to know.
    """

    name: str
    pipelines: tuple[str, ...]
    match: Mapping[str, Mapping[str, Any]]
    arguments: Mapping[str, Scalar]
    parameters: Mapping[str, int]
    held: Mapping[str, int]
    token: tuple[int, int, int]
    width: int
    licence: str
    models: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("text",)
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

    @property
    def size(self) -> tuple[int, int] | None:
        """Native height and width; None where they are those of the picture that it starts from."""
        found = self.arguments.get("height"), self.arguments.get("width")
        return (int(found[0]), int(found[1])) if found[0] and found[1] else None

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
