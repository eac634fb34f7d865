"""Pipelines and components by their names in a model's index: ours that diffusers lacks, and diffusers' own.

A folder names our components by [module, class], as diffusers' `save_pretrained` writes them. Only modules
that a family lists are imported, because a model_index.json is not trusted.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

from framefleet.pipeline.guards.named_function import source_digest
from framefleet.pipeline.model.families.registry import FAMILIES
from framefleet.pipeline.model.specs.model_index import is_modular

# From class to module.
PIPELINES = {name: module for family in FAMILIES for name, module in family.pipelines.items()}
_COMPONENTS = {name: module for family in FAMILIES for name, module in family.components.items()}
_OURS = PIPELINES | _COMPONENTS


def class_named(name: str) -> Any:
    """Return the pipeline or scheduler with this name, ours or diffusers'."""
    import diffusers

    return own_class(name) or modular_pipeline(name) or getattr(diffusers, name)


def modular_pipeline(name: str) -> Any:
    """Return diffusers' modular pipeline with this name as a class with a signature, or None."""
    if not is_modular(name):
        return None
    from framefleet.pipeline.model.modular import modular_class  # imports diffusers

    return modular_class(name)


def exported(module: Any, name: str) -> Any:
    """Return what a library exports under a name from a model, which may be anything; or None."""
    try:
        return getattr(module, name, None)
    except (ImportError, RuntimeError):  # a part of the library that needs missing packages
        return None


def is_standin(value: Any) -> bool:
    """Return whether a value stands in for a class whose packages are not installed."""
    return type(value).__name__ == "DummyObject"


def own_class(name: str) -> Any:
    """Return our pipeline or component with this name, or None."""
    module = _OURS.get(name)
    return getattr(importlib.import_module(module), name) if module else None


@dataclass(frozen=True, slots=True)
class PipelineCode:
    """The package of a user's own pipeline. title: its name and version. digest: of the pipeline's file."""

    title: str
    digest: str


@functools.cache
def code_of(name: str) -> PipelineCode | None:
    """Return the package of the pipeline with this name, if it is neither diffusers' nor framefleet's.

    Only installed plugins can name one: whoever installed the package agreed to run its code.
    """
    top = PIPELINES.get(name, "framefleet").partition(".")[0]
    if top == "framefleet":
        return None
    packages = metadata.packages_distributions().get(top, ())
    title = f"{packages[0]} {metadata.version(packages[0])}" if packages else top
    return PipelineCode(title, source_digest(own_class(name)))


def numerics_of_code(name: str) -> dict[str, str]:
    """Return the digest of a pipeline's code for row identities, if it is from another package."""
    code = code_of(name)
    return {"pipeline_code": code.digest} if code else {}


def module_of(name: str) -> str:
    """Return the module from which a script imports a pipeline or scheduler."""
    return _OURS.get(name, "diffusers")


def object_at(place: str) -> Any:
    """Import "module:function" from a family."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def class_of(library: str, name: str) -> Any:
    """Return the class of a component that a model_index.json names; None if it is not installed.

    Only from our modules, diffusers, its modules with a pipeline's own components, or transformers:
    importing a module runs it, and the name comes from the model's folder.
    """
    if library == _COMPONENTS.get(name):
        return own_class(name)
    if library in ("diffusers", "transformers"):
        return exported(importlib.import_module(library), name)
    module = exported(importlib.import_module("diffusers.pipelines"), library)
    return exported(module, name) if isinstance(module, ModuleType) else None
