"""From a pipeline folder's configs to the pipeline without weights, which shows what fits it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from torch import nn

from framefleet.pipeline.model.sources.assembly import assembled
from framefleet.pipeline.model.sources.components import Component, class_of
from framefleet.pipeline.model.sources.verified_folder import sealed
from framefleet.pipeline.model.specs.list_arguments import CONTROLNETS
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
        networks = {c.name: _blank(c, place) for c in components if c.has_weights}
        return assembled(place, spec, components, networks=networks)


def _blank(component: Component, place: Path) -> nn.Module:
    found = class_of(component.library, component.class_name)
    network: nn.Module
    if component.class_name == CONTROLNETS:
        from diffusers import ControlNetModel

        network = found([_configured(ControlNetModel, place / name) for name in component.folders])
        return network
    if component.loader == "diffusers":
        return _configured(found, place / component.name)
    config = found.config_class.from_pretrained(place / component.name)
    with init_empty_weights():
        network = found(config)
    return network


def _configured(found: Any, folder: Path) -> nn.Module:
    config = found.load_config(folder)
    with init_empty_weights():
        network: nn.Module = found.from_config(config)
    return network
