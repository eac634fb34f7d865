"""From a folder of hashed files to the pipeline of its components: with its weights, or blank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn

from framefleet.pipeline.errors import NotLoaded
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
        networks = {c.name: _blank(c, place) for c in components if c.has_weights}
        return assembled(place, spec, components, networks=networks)


def absent(
    place: Path,
    components: Iterable[Component],
    prefixes: tuple[str, ...],
    *,
    dtypes: torch.dtype | Mapping[str, torch.dtype],
    device: str,
) -> dict[str, nn.Module]:
    """Return networks in place of those whose names begin with one of these, without their weights.

    They have the configs, the dtypes and the device, take no memory, and raise NotLoaded when they compute.
    """
    networks = {}
    for one in components:
        if one.has_weights and one.name.startswith(prefixes):
            dtype = dtypes.get(one.name, dtypes["default"]) if isinstance(dtypes, Mapping) else dtypes
            networks[one.name] = _emptied(_blank(one, place), one.name, dtype=dtype, device=device)
    return networks


def entrances(network: nn.Module, name: str) -> dict[str, nn.Module]:
    """Return what a pipeline calls of a network, by name: itself, or one of the networks that it consists of.

    MiniMax-H3 calls its conditioner without the head.
    """
    parts = {f"{name}.{own}": part for own, part in network.named_children() if [*part.children()]}
    return {name: network, **parts}


def _emptied(network: nn.Module, name: str, *, dtype: torch.dtype, device: str) -> nn.Module:
    called = {*entrances(network, name).values()}  # whose calls others answer
    for part in network.eval().modules():
        for key, weight in part._parameters.items():
            if weight is not None:
                kind = dtype if weight.is_floating_point() else weight.dtype
                zeros = torch.zeros((), dtype=kind, device=device).expand(weight.shape)  # one value for all
                part._parameters[key] = nn.Parameter(zeros, requires_grad=False)
        for key, buffer in part._buffers.items():
            part._buffers[key] = None if buffer is None else buffer.to(device)
        if part not in called:
            part.register_forward_pre_hook(partial(_refuse, name))
    return network


def _refuse(name: str, *_: object) -> None:
    raise NotLoaded(
        f"{name} is not loaded in this process, and the pipeline calls it in a way that cannot be kept",
        "leave `fleet.encoders` out of the job",
    )


def _blank(component: Component, place: Path) -> nn.Module:
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
