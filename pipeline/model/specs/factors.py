"""From a model's configs to its pipeline as far as its source tells, and to how large a latent is.

Pipelines compute how many pixels one latent stands for, and not all ask the autoencoder: Wan's over videos
counts the levels that it halves, and knows nothing of patches (Wan 2.2 TI2V, the shipped demo).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefleet.pipeline.model.registry import exported, own_component
from framefleet.pipeline.model.specs.constructor import Constructed
from framefleet.pipeline.model.specs.model_index import MODEL_INDEX, index_of

_Configs = Mapping[str, Mapping[str, Any]]
# What pipelines call a factor, and where an autoencoder's config says what it is.
_SPATIAL = ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_scale_factor")
_TEMPORAL = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio")
_SAID = {
    _SPATIAL: ("scale_factor_spatial", "spatial_compression_ratio"),
    _TEMPORAL: ("scale_factor_temporal", "temporal_compression_ratio"),
}


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


class _Nameless:
    """Stands for the class of a component that is not known: its config still is."""


def _component(library: str, name: str, config: Mapping[str, Any] | None) -> Constructed | None:
    """Return a component whose config is read, or None: an encoder, a tokenizer."""
    import diffusers

    if config is None:
        return None
    found = own_component(library, name) or exported(diffusers, name)
    return Constructed(found if isinstance(found, type) else _Nameless, config)
