"""From the name of an image model in a cell to what identifies it; and to the model itself, in a worker."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.specs.check import Refused

if TYPE_CHECKING:
    from framefleet.pipeline.model import Model

ARGUMENT = "image_model"  # of the recipes that need a second model
_NEEDED = {"prompt", "height", "width"}


def check_image_model(cell: Any) -> dict[str, str] | Refused:
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
    if spec.kind != "image" or not set(spec.parameters) >= _NEEDED:
        return Refused(
            reason=f"{spec.class_name} does not make images of any size from text",
            fix="use an image model, as black-forest-labs/FLUX.1-dev",
        )
    return {"model": public_name(source.path, source.revision), "digest": digest}


def open_image_model(asked: Mapping[str, str], *, device: str) -> Model:
    """Return the model that `check_image_model` named; the last one is kept in memory."""
    return _opened(asked["model"], asked["digest"], device)


@functools.lru_cache(maxsize=1)  # a second one beside the video model is as much as a GPU may hold
def _opened(name: str, digest: str, device: str) -> Model:
    import torch

    from framefleet.pipeline.model import load_model

    model = load_model(name, device=device, threads=torch.get_num_threads())
    if model.digest != digest:
        raise ModelError(
            f"the image model {name} is not the one that it was when the row was checked",
            "put the first one back, or run the same command again to render with the new one",
        )
    return model
