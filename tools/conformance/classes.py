"""The pipeline classes of the installed diffusers, by what they make, as their code says."""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any, Literal

import diffusers

from framefleet.pipeline.model.modular import fields_given
from framefleet.pipeline.model.registry import exported, is_standin
from framefleet.pipeline.model.specs.model_index import is_modular
from framefleet.pipeline.model.specs.pipeline_call import fields_returned
from framefleet.pipeline.outputs.frames.fields import SOUND, VIDEO_FIELDS

Kind = Literal["video", "image", "sound", "other", "deprecated"]
_FIELDS: dict[str, Kind] = {"frames": "video", "video": "video", "images": "image"}
# What `__call__` returns at its end: `return WanPipelineOutput(frames=video)`.
_RETURNED = re.compile(rf"return \w+Output\(\s*({'|'.join(_FIELDS)})=")


@functools.cache
def classes_by_kind() -> dict[Kind, list[str]]:
    """Return the names of all, sorted; those that diffusers calls deprecated by themselves."""
    found: dict[Kind, list[str]] = {"video": [], "image": [], "sound": [], "other": [], "deprecated": []}
    for name in sorted(dir(diffusers)):
        kind = _kind(name, exported(diffusers, name)) if name.endswith("Pipeline") else None
        if kind:
            found[kind].append(name)
    return found


def _kind(name: str, found: Any) -> Kind | None:
    """Return what a class makes; None for what is no pipeline, or a base of some."""
    bases = (diffusers.DiffusionPipeline, diffusers.ModularPipeline)
    if not isinstance(found, type) or is_standin(found) or not issubclass(found, bases) or found in bases:
        return None
    if ".deprecated." in found.__module__:
        return "deprecated"
    if is_modular(name):
        return _by_fields(fields_given(name))
    if "__call__" not in vars(found):
        return None
    returned = _RETURNED.search(inspect.getsource(vars(found)["__call__"]))
    return _FIELDS[returned[1]] if returned else _by_fields(fields_returned(found))


def _by_fields(fields: frozenset[str]) -> Kind:
    if not fields.isdisjoint(VIDEO_FIELDS):
        return "video"
    if not fields.isdisjoint(_FIELDS):
        return "image"
    return "other" if fields.isdisjoint(SOUND) else "sound"
