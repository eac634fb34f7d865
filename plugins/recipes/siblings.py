"""Siblings: other pipelines over a model's components, each for another task.

diffusers has a class for each task. Where one set of weights does several of them, its family says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from framefleet.api.clips import Request
from framefleet.api.models import Model
from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.model.families.family import SiblingTask
from framefleet.pipeline.model.families.registry import FAMILIES
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.model_index import Configs
from framefleet.pipeline.model.specs.pipeline_call import autoencoder_factors
from framefleet.pipeline.recipes.second_model import AROUND_SIBLINGS

SIBLINGS = tuple(sibling for family in FAMILIES for sibling in family.siblings)


def find_sibling(
    class_name: str, task: SiblingTask, configs: Configs, *, redraws: bool = False
) -> str | None:
    """Return the name of the class that does `task` with the components of a `class_name`, if there is one.

    configs: of the model's components, by name, and model_index.json as "index". redraws: it must take the
    lengths of clips that `class_name` renders.
    """
    try:
        return sibling_class(class_name, task, configs, redraws=redraws)
    except RecipeError:
        return None


def sibling_class(class_name: str, task: SiblingTask, configs: Configs, *, redraws: bool = False) -> str:
    """Return what `find_sibling` does, or raise RecipeError with the models that can."""
    of_task = [sibling for sibling in SIBLINGS if sibling.task == task]
    if any(sibling.target == class_name for sibling in of_task):
        return class_name
    entry = next((sibling for sibling in of_task if sibling.source == class_name), None)
    if entry is None:
        fix = f"models that can: {', '.join(sibling.source for sibling in of_task)}"
        raise RecipeError(f"diffusers has no {task} for the weights of {class_name}", fix)
    if not entry.fits(configs, redraws=redraws):
        reason, fix = entry.otherwise
        raise RecipeError(f"{class_name} of this model cannot do {task}: {reason}", fix)
    return entry.target


def as_sibling(pipe: Any, class_name: str) -> Any:
    """Return a `class_name` over the components of `pipe`, its scheduler included, without a progress bar.

    Not `from_pipe`, which casts all components to fp32.
    """
    if type(pipe).__name__ == class_name:
        return pipe
    made = class_named(class_name)
    noising = next((sibling.noising for sibling in SIBLINGS if sibling.target == class_name), None)
    if noising and not hasattr(pipe.scheduler, noising):
        raise RecipeError(
            f"{class_name} cannot use the scheduler {type(pipe.scheduler).__name__}",
            "use flow_euler, or leave the scheduler out",
        )
    parts = {**pipe.config, **pipe.components}
    names = inspect.signature(made.__init__).parameters
    sibling = made(**{name: parts[name] for name in names if name in parts})
    for name, factor in autoencoder_factors(configs_of(pipe)).items():
        if hasattr(sibling, name):  # it may have computed another, of which nothing fits
            setattr(sibling, name, factor)
    sibling.set_progress_bar_config(disable=True)
    if around := vars(pipe).get(AROUND_SIBLINGS):
        around(sibling)
    return sibling


def configs_of(pipe: Any) -> dict[str, Mapping[str, Any]]:
    """Return the configs of a loaded pipeline, as the checks read them from its folder."""
    configs = {name: getattr(part, "config", None) for name, part in pipe.components.items()}
    return {"index": pipe.config} | {name: c for name, c in configs.items() if isinstance(c, Mapping)}


def accepted(pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a row's arguments that the call of `pipe` has too."""
    parameters = inspect.signature(type(pipe).__call__).parameters
    return {name: value for name, value in arguments.items() if name in parameters}


def arguments_for(model: Model, request: Request, **given: Any) -> dict[str, Any]:
    """Return what a second model is called with: the row's prompts and what is given, else as its preset."""
    prompts = {name: request.arguments.get(name) for name in ("prompt", "negative_prompt")}
    names = model.spec.parameters
    own = {name: v for name, v in {**prompts, **given}.items() if v is not None and name in names}
    return {**model.spec.defaults(), **own}
