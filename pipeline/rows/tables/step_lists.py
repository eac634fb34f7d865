"""From a row's own list of noise levels or timesteps to why its scheduler does not step through them.

Few-step models are rendered so. The scheduler itself is asked, as the pipeline would set it: which lists it
takes (falling, within what it was trained with, none at all) is for each class to say.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.class_cache import kept
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.constructor import method
from framefleet.pipeline.model.specs.pipeline_call import pipeline_named
from framefleet.pipeline.model.specs.refusal import Refused
from framefleet.pipeline.model.specs.schedulers import SchedulerChoice
from framefleet.pipeline.model.specs.spec import PipelineSpec

STEP_LISTS = ("sigmas", "timesteps")
_MAX_SAID = 200  # characters of what a scheduler says
_CACHED = 1024


def listed_steps(arguments: Mapping[str, Any]) -> int | None:
    """Return how many steps a row lists, which is its `num_inference_steps` then; or None."""
    return next((len(arguments[name]) for name in STEP_LISTS if isinstance(arguments.get(name), list)), None)


def check_step_lists(
    arguments: Mapping[str, Any], choice: SchedulerChoice, spec: PipelineSpec
) -> Iterator[tuple[str, Refused]]:
    """Yield what keeps a row from being rendered with the steps that it lists."""
    given = [name for name in STEP_LISTS if isinstance(arguments.get(name), list)]
    if len(given) > 1:
        reason = "a row lists its steps once, and it lists `sigmas` too"
        yield "timesteps", Refused(reason=reason, fix="leave one of them out")
        return
    for name in given:
        count, steps = len(arguments[name]), arguments.get("num_inference_steps")
        if steps not in (None, count):
            reason = f"`{name}` lists {count} steps"
            yield "num_inference_steps", Refused(reason=reason, fix=f"leave it out, or use {count}")
        if refusal := _refusal(name, arguments[name], choice, spec):
            yield name, Refused(reason=refusal, fix="correct it, leave it out, or use another scheduler")


def _refusal(name: str, steps: list[float], choice: SchedulerChoice, spec: PipelineSpec) -> str | None:
    if not choice.class_name:
        return None  # the pipeline's own steps, of which it says itself what it takes
    config = {**spec.scheduler_config, **choice.overrides}
    if name == "sigmas" and config.get("use_flow_sigmas") and _leaves_out(spec.class_name):
        return f"the pipeline leaves it out for {choice.class_name}, which makes its own"
    scheduler = (spec.scheduler_class, choice.class_name)
    return _said(
        *scheduler, *map(canonical_json, (spec.scheduler_config, choice.overrides)), name, tuple(steps)
    )


@lru_cache(_CACHED)
@kept(TypeAdapter(bool))
def _leaves_out(class_name: str) -> bool:
    """Tell of `if self.scheduler.config.use_flow_sigmas: sigmas = None`, which Flux and others have."""
    call = method(pipeline_named(class_name), "__call__")
    return call is not None and "use_flow_sigmas" in ast.unparse(call)


@lru_cache(_CACHED)  # a table lists few schedules, in many rows
def _said(
    own_class: str, class_name: str, config: str, overrides: str, name: str, steps: tuple[float, ...]
) -> str | None:
    """Return what a scheduler says against steps that it is set to, or None. config, overrides: JSON."""
    own = class_named(own_class).from_config(json.loads(config))
    scheduler = class_named(class_name).from_config(own.config, **json.loads(overrides))
    taken = inspect.signature(scheduler.set_timesteps).parameters
    if name not in taken:
        return f"{class_name} takes no `{name}`"
    mu = {"mu": 1.0} if "mu" in taken and scheduler.config.get("use_dynamic_shifting") else {}
    try:
        scheduler.set_timesteps(**{name: list(steps)}, device="cpu", **mu)
    except Exception as error:  # what a scheduler raises is its own; some only fail where they compute
        return f"{class_name} does not take it: {str(error)[:_MAX_SAID]}"
    return None
