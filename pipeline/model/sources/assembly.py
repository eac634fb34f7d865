"""From a folder of hashed files to the pipeline of its components: with its weights, or blank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from torch import nn

from framefleet.pipeline.model.sources.components import Component, class_of
from framefleet.pipeline.model.sources.verified_folder import sealed
from framefleet.pipeline.model.specs.model_index import CONTROLNETS, is_modular
from framefleet.pipeline.model.specs.spec import PipelineSpec


def blank_pipeline(
    folder: Path, files: Iterable[str], components: Iterable[Component], spec: PipelineSpec
) -> Any:
    """Return the pipeline with every parameter on the meta device; tokenizers and scheduler are real.

    folder: of the model's configs, which are `files`. Raises ModelError for configs that no network can be
    made of.
    """
    components = list(components)
    with sealed(folder, files) as place:
        networks = {c.name: blank_network(c, place) for c in components if c.has_weights}
        return assembled(place, spec, components, networks=networks)


def blank_network(component: Component, place: Path) -> nn.Module:
    """Return a network with every parameter on the meta device. place: the folder of its pipeline."""
    made = class_of(component.library, component.class_name)
    network: nn.Module
    if component.class_name == CONTROLNETS:
        from diffusers import ControlNetModel

        network = made([_configured(ControlNetModel, place / name) for name in component.folders])
        return network
    if component.loader == "diffusers":
        return _configured(made, place / component.name)
    config = made.config_class.from_pretrained(place / component.name)
    with init_empty_weights():
        network = made(config)
    return network


def _configured(found: Any, folder: Path) -> nn.Module:
    config = found.load_config(folder)
    with init_empty_weights():
        network: nn.Module = found.from_config(config)
    return network


def assembled(
    place: Path, spec: PipelineSpec, components: Iterable[Component], *, networks: Mapping[str, nn.Module]
) -> Any:
    """Return the pipeline of these networks, with the tokenizers and the scheduler in the folder.

    The concrete class: DiffusionPipeline.from_pretrained drops components it is handed (diffusers 0.42).
    """
    if not is_modular(spec.class_name):
        return spec.pipeline_class.from_pretrained(place, local_files_only=True, **networks)
    # Not by its own loader, which imports and fetches what the index names, and goes on where that fails.
    pipe = spec.pipeline_class()
    parts = dict(networks)
    for component in components:
        if component.name not in parts:
            made = class_of(component.library, component.class_name)
            parts[component.name] = made.from_pretrained(
                place, subfolder=component.name, local_files_only=True
            )
    pipe.register_components(**parts)
    specs = pipe._config_specs
    pipe.update_components(**{name: v for name, v in spec.configs["index"].items() if name in specs})
    return pipe
