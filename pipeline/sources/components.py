"""From model_index.json to the components that it names, all of them of installed classes."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.json_text import parse_json
from framefleet.pipeline.registry import is_own_module, own_class
from framefleet.pipeline.sources.selection import INDEX, is_weights

OWN_CODE = (
    "pipelines with code of their own are not loaded; use a model made for diffusers, or update diffusers"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One folder of a pipeline. library: where its class is from. has_weights: whether it is a network."""

    name: str
    library: str
    class_name: str
    has_weights: bool


def parse_index(content: bytes, where: str) -> dict[str, Any]:
    """Return model_index.json as a mapping. Raises ModelError for another thing, or a custom pipeline."""
    try:
        index = parse_json(content)
    except ValueError as error:
        raise ModelError(f"{where} cannot be read: {error}", "download the model again") from error
    if not isinstance(index, dict):
        raise ModelError(f"{where} is not a JSON object", "download the model again")
    if isinstance(index.get("_class_name"), list) or "custom_pipeline" in index:
        raise ModelError(f"{where} names a custom pipeline", OWN_CODE)
    return index


def components_of(index: Mapping[str, Any], where: str) -> tuple[Component, ...]:
    """Return the components that are there. Raises ModelError for a class that no installed library has."""
    entries = {
        name: entry for name, entry in index.items() if isinstance(entry, list) and entry[:1] != [None]
    }
    return tuple(_component(name, entry, where) for name, entry in entries.items() if entry)


def components_in(folder: Path) -> tuple[Component, ...]:
    """Return the components of a folder."""
    where = str(folder / INDEX)
    return components_of(parse_index((folder / INDEX).read_bytes(), where), where)


def check_weights(components: Iterable[Component], files: Iterable[str], where: str) -> None:
    """Raise ModelError for a network without weights among the selected `files`."""
    found = {file.partition("/")[0] for file in files if is_weights(file)}
    for component in components:
        if component.has_weights and component.name not in found:
            raise ModelError(
                f"{where}/{component.name} cannot be loaded: a {component.class_name} needs weights, and "
                "there is no model.safetensors or diffusion_pytorch_model.safetensors, nor their shards",
                "fetch the model again; of a model that has other variants only, as fp16, rename their files",
            )


def _component(name: str, entry: list[Any], where: str) -> Component:
    from torch import nn

    library, class_name = (*map(str, entry), "")[:2]
    found = class_of(library, class_name)
    if found is None:
        raise ModelError(
            f"{where}: {name} is of {library}.{class_name}, which is not installed here", OWN_CODE
        )
    return Component(
        name=name,
        library=library,
        class_name=class_name,
        has_weights=isinstance(found, type) and issubclass(found, nn.Module),
    )


def class_of(library: str, name: str) -> Any:
    """Return the class of a component; None when it is not installed."""
    own = own_class(name) if is_own_module(library) else None
    return own or getattr(_library(library), name, None)


def _library(name: str) -> Any:
    """Return diffusers, transformers, or the part of diffusers that holds a pipeline's own components.

    Nothing else: importing a module runs it, and the name comes from the model's folder.
    """
    if name in ("diffusers", "transformers"):
        return importlib.import_module(name)
    return getattr(importlib.import_module("diffusers.pipelines"), name, None)
