"""Pipelines and components by the names in a model's index: ours that diffusers lacks, or diffusers'.

A folder names a component of ours by [module, class], as diffusers' own `save_pretrained` writes it. Only the
modules that a family lists are ever imported for it: what a model_index.json names is not to be trusted.
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

# class: the module that holds it
PIPELINES = {name: module for family in FAMILIES for name, module in family.pipelines.items()}
_COMPONENTS = {name: module for family in FAMILIES for name, module in family.components.items()}
_OURS = PIPELINES | _COMPONENTS


def class_named(name: str) -> Any:
    """Return the pipeline or scheduler of that name: ours, or diffusers'."""
    import diffusers

    return own_class(name) or modular_pipeline(name) or getattr(diffusers, name)


def modular_pipeline(name: str) -> Any:
    """Return a modular pipeline of diffusers as a class with a signature, or None."""
    if not is_modular(name):
        return None
    from framefleet.pipeline.model.modular import modular_class  # imports diffusers

    return modular_class(name)


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
    module = _OURS.get(name)
    return getattr(importlib.import_module(module), name) if module else None


@dataclass(frozen=True, slots=True)
class PipelineCode:
    """The package of a pipeline of a user's own. title: its name and version. digest: of the file."""

    title: str
    digest: str


@functools.cache
def code_of(name: str) -> PipelineCode | None:
    """Return whose code the pipeline of that name is, if neither diffusers' nor framefleet's.

    Only an installed plugin can name it: that somebody installed the package is the consent to run it.
    """
    top = PIPELINES.get(name, "framefleet").partition(".")[0]
    if top == "framefleet":
        return None
    packages = metadata.packages_distributions().get(top, ())
    title = f"{packages[0]} {metadata.version(packages[0])}" if packages else top
    return PipelineCode(title, source_digest(own_class(name)))


def numerics_of_code(name: str) -> dict[str, str]:
    """Return what of a pipeline's class decides the frames, if a stranger's package holds it."""
    code = code_of(name)
    return {"pipeline_code": code.digest} if code else {}


def module_of(name: str) -> str:
    """Return where a script imports a pipeline or scheduler from."""
    return _OURS.get(name, "diffusers")


def object_at(place: str) -> Any:
    """Return what a family names as "module:function"."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def class_of(library: str, name: str) -> Any:
    """Return the class of a component, as a model_index.json names it; None when it is not installed.

    Ours, of diffusers, of the part of it that holds a pipeline's own components, or of transformers. Of
    nothing else: importing a module runs it, and the name comes from the model's folder.
    """
    if library == _COMPONENTS.get(name):
        return own_class(name)
    if library in ("diffusers", "transformers"):
        return exported(importlib.import_module(library), name)
    module = exported(importlib.import_module("diffusers.pipelines"), library)
    return exported(module, name) if isinstance(module, ModuleType) else None
