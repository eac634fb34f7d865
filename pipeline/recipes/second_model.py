"""From the name of a second model in a cell to what identifies it; and to the model itself, in a worker."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from framefleet.pipeline.errors import ModelError, RecipeError
from framefleet.pipeline.specs.check import Refused
from framefleet.pipeline.specs.signature import InputKind

if TYPE_CHECKING:
    from framefleet.pipeline.model import Model
    from framefleet.pipeline.request import Request

# Arguments of recipes that name a second model: what it makes from text, what its call takes, an example.
MAKES = {
    "image_model": ("image", {"prompt", "height", "width"}, "black-forest-labs/FLUX.1-dev"),
    "keyframe_model": ("video", {"prompt"}, "a VideoCrafter2 folder"),
}


def check_second_model(argument: str, cell: Any) -> dict[str, str] | Refused:
    """Return {"model", "digest"}, or why it cannot be used. Reads what naming a model reads.

    The digest makes the files of the model part of the row's identity, and not their name.
    """
    from framefleet.pipeline.model import ModelSettings, source_of, weights_of
    from framefleet.pipeline.sources.integrity import model_digest
    from framefleet.pipeline.sources.source import public_name
    from framefleet.pipeline.specs.spec import inspect_model

    if not isinstance(cell, str) or not cell.strip():
        return Refused(reason="it must be the folder or hub name of a model", fix="write it as text")
    settings = ModelSettings(path=cell.strip())
    try:
        source = source_of(settings)
        weights = weights_of(settings, source)
        spec = inspect_model(weights.configs())
        digest = model_digest(weights.digests())
    except ModelError as error:
        return Refused(reason=error.problem, fix=error.fix)
    kind, needed, example = MAKES[argument]
    starts_from_one = any(p.required and p.kind in get_args(InputKind) for p in spec.parameters.values())
    if spec.kind != kind or not set(spec.parameters) >= needed or starts_from_one:
        return Refused(
            reason=f"{spec.class_name} does not make {kind}s from text alone",
            fix=f"use a model that does, as {example}",
        )
    return {"model": public_name(source.path, source.revision), "digest": digest}


def open_second_model(asked: Mapping[str, str], *, device: str) -> Model:
    """Return the model that `check_second_model` named; the last one is kept in memory."""
    return _opened(asked["model"], asked["digest"], device)


@functools.lru_cache(maxsize=1)  # a second one beside the video model is as much as a GPU may hold
def _opened(name: str, digest: str, device: str) -> Model:
    import torch

    from framefleet.pipeline.model import load_model

    model = load_model(name, device=device, threads=torch.get_num_threads())
    if model.digest != digest:
        raise ModelError(
            f"the model {name} is not the one that it was when the row was checked",
            "put the first one back, or run the same command again to render with the new one",
        )
    return model


def asked_model(argument: str, cell: Any) -> Mapping[str, str]:
    """Return what the row's check made of the cell; a recipe that is called by hand is given the text."""
    found = cell if isinstance(cell, Mapping) else check_second_model(argument, cell)
    if isinstance(found, Refused):
        raise RecipeError(f"{argument} is {cell!r}, but {found.reason}", found.fix)
    return found


def arguments_for(model: Model, request: Request, **asked: Any) -> dict[str, Any]:
    """Return what a second model is called with: the row's prompts and what is asked, else as its preset."""
    prompts = {name: request.arguments.get(name) for name in ("prompt", "negative_prompt")}
    given = {name: value for name, value in {**prompts, **asked}.items() if value is not None}
    return {**model.spec.defaults(), **{k: v for k, v in given.items() if k in model.spec.parameters}}
