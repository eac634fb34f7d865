"""From a model's configs to its pipeline, as far as its source says what that is, and to what it renders.

Pipelines compute how many pixels one latent stands for, and not all ask the autoencoder: Wan's over videos
counts the levels that it halves, and knows nothing of patches (Wan 2.2 TI2V, the shipped demo).
Modular pipelines state rate, lengths and sizes as properties (`fps`, `max_duration`, `canvas_multiple`), and
others as constants of their classes (`FPS`). These are read from their source over the configs of a model. A
preset adds only what no class says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from framefleet.pipeline.model.registry import exported, own_component
from framefleet.pipeline.model.specs.constructor import Constructed, Unknown
from framefleet.pipeline.model.specs.model_index import MODEL_INDEX, index_of
from framefleet.pipeline.request import MAX_FPS

_Configs = Mapping[str, Mapping[str, Any]]
# What pipelines call a factor, and where an autoencoder's config says what it is.
_SPATIAL = ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_scale_factor")
_TEMPORAL = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio")
_SAID = {
    _SPATIAL: ("scale_factor_spatial", "spatial_compression_ratio"),
    _TEMPORAL: ("scale_factor_temporal", "temporal_compression_ratio"),
}

# How classes call their rate, as a property or a constant: the usual ones first.
_RATES = (
    "fps",
    "frame_rate",
    "native_fps",
    "default_fps",
    "model_fps",
    "video_fps",
    "output_fps",
    "target_fps",
)
_MAX_S, _MAX_COUNT = 86_400.0, 1 << 14  # no model has a tenth of it


def autoencoder_factors(configs: _Configs) -> dict[str, int]:
    """Return what a pipeline's factors must be, by all names of theirs, where it is said."""
    vae = configs.get("vae", {})
    found = {names: next((vae[key] for key in keys if vae.get(key)), None) for names, keys in _SAID.items()}
    return {name: int(factor) for names, factor in found.items() if factor for name in names}


def constructed_pipeline(made: type, configs: _Configs) -> Constructed:
    """Return a pipeline over components of these configs, model_index.json as "index".

    Another class than the model's own has the autoencoder's factors, as `as_sibling` gives them to it.
    """
    index = index_of(configs["index"], MODEL_INDEX)
    parts = {name: _component(*found, configs.get(name)) for name, found in index.components.items()}
    pipe = Constructed(made, {**index.values, **parts})
    if made.__name__ != index.class_name:
        pipe.attributes.update(
            {name: factor for name, factor in autoencoder_factors(configs).items() if name in pipe.attributes}
        )
    return pipe


def _component(library: str, name: str, config: Mapping[str, Any] | None) -> Constructed | None:
    """Return a component whose config is read, or None: an encoder, a tokenizer."""
    import diffusers

    if config is None:
        return None
    found = own_component(library, name) or exported(diffusers, name)
    return Constructed(found if isinstance(found, type) else object, config)  # its config is known anyway


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeFacts:
    """What a class states; None where it states nothing."""

    fps: float | None = None  # frames per second
    sides: int | None = None  # what height and width are multiples of
    frame_step: int | None = None  # frames are `frame_step * k + frame_rest`
    frame_rest: int | None = None
    shortest_s: float | None = None  # of a clip
    longest_s: float | None = None  # of a clip
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None

    def frames_between(self) -> tuple[int | None, int | None]:
        """Return the numbers of frames of the shortest and of the longest clip, as the step allows them."""
        step, rest, fps = self.frame_step or 1, self.frame_rest or 0, self.fps or math.nan
        least, most = (math.nan if s is None else s * fps for s in (self.shortest_s, self.longest_s))
        shortest = None if math.isnan(least) else math.ceil((least - rest) / step) * step + rest
        longest = None if math.isnan(most) else math.floor((most - rest) / step) * step + rest
        return shortest, longest


def native_facts(pipe: Any) -> NativeFacts:
    """Return what a pipeline states. pipe: as far as its source and configs tell (`constructed_pipeline`)."""
    step, rest = _count(pipe, "vae_frames_per_chunk"), _count(pipe, "vae_latents_per_chunk")
    has_step = step is not None and rest is not None and rest < step
    return NativeFacts(
        fps=_number(pipe, (*_RATES, *map(str.upper, _RATES)), MAX_FPS),
        sides=_count(pipe, "canvas_multiple"),
        frame_step=step if has_step else None,
        frame_rest=rest if has_step else None,
        shortest_s=_number(pipe, ("min_duration",), _MAX_S),
        longest_s=_number(pipe, ("max_duration",), _MAX_S),
        height=_count(pipe, "default_height"),
        width=_count(pipe, "default_width"),
        num_frames=_count(pipe, "default_num_frames"),
    )


def _number(pipe: Any, names: tuple[str, ...], most: float) -> float | None:
    """Return the first fact that a pipeline states by one of these names, the usual one first."""
    for name in names:
        try:
            value = getattr(pipe, name)
        except (AttributeError, Unknown):
            continue
        if type(value) in (int, float) and 0 < value <= most:
            return float(value)
    return None


def _count(pipe: Any, name: str) -> int | None:
    value = _number(pipe, (name,), _MAX_COUNT)
    return int(value) if value is not None and value == int(value) else None
