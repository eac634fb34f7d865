"""Pipelines and components that diffusers lacks, by the names in a model_index.json. Imports none of them.

A folder names a component of ours by [module, class], as diffusers' own `save_pretrained` writes it. Only the
modules listed here are ever imported for it: what a model_index.json names is not to be trusted.
"""

from __future__ import annotations

import importlib
from typing import Any

_CRAFTER = "framefleet.pipeline.models.crafter"
_OPENSORA = "framefleet.pipeline.models.opensora"

# class: the module that holds it
PIPELINES = {
    "DynamiCrafterPipeline": f"{_CRAFTER}.pipeline_dynamicrafter",
    "OpenSoraPipeline": f"{_OPENSORA}.pipeline_opensora",
    "VideoCrafterImageToVideoPipeline": f"{_CRAFTER}.pipeline_videocrafter",
    "VideoCrafterPipeline": f"{_CRAFTER}.pipeline_videocrafter",
}
_COMPONENTS = {
    "AutoencoderDCVideo": f"{_OPENSORA}.autoencoder_dc_video",
    "VideoCrafterDDIMScheduler": f"{_CRAFTER}.scheduler",
    "VideoCrafterImageProjector": f"{_CRAFTER}.resampler",
    "VideoCrafterPooledImageProjector": f"{_CRAFTER}.resampler",
    "VideoCrafterUNet3DModel": f"{_CRAFTER}.unet",
}
# class: the module whose `row_rules` knows what a row may hold, beyond what each argument may be
RULES = {"OpenSoraPipeline": f"{_OPENSORA}.rules"}


def class_named(name: str) -> Any:
    """Return the pipeline or scheduler of that name: ours, or diffusers'."""
    import diffusers

    return own_class(name) or getattr(diffusers, name)


def exported(module: Any, name: str) -> Any:
    """Return what a library has under a name that a model gives, or None. Says nothing of what it is."""
    try:
        return getattr(module, name, None)
    except (ImportError, RuntimeError):  # a part of the library that needs packages which are not there
        return None


def is_standin(found: Any) -> bool:
    """Whether it is what a library has in place of a class whose packages are not installed."""
    return type(found).__name__ == "DummyObject"


def own_class(name: str) -> Any:
    """Return our pipeline or component of that name, or None."""
    module = (PIPELINES | _COMPONENTS).get(name)
    return getattr(importlib.import_module(module), name) if module else None


def module_of(name: str) -> str:
    """Return where a script imports a pipeline or scheduler from."""
    return (PIPELINES | _COMPONENTS).get(name, "diffusers")


def own_row_rules(name: str) -> Any:
    """Return the `rows.Rules` of our pipeline of that name, or None."""
    return importlib.import_module(RULES[name]).row_rules if name in RULES else None


def own_component(module: str, name: str) -> Any:
    """Return our component that a model_index.json names by module and class, or None."""
    return own_class(name) if _COMPONENTS.get(name) == module else None
