"""From a guidance cell that holds a schedule to its one spelling, or to why the pipeline cannot follow it."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from framefleet.pipeline.model.class_cache import kept
from framefleet.pipeline.model.families.registry import family_of
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.refusal import Refused
from framefleet.pipeline.model.specs.spec import Configs
from framefleet.pipeline.recipes.guidance import GUIDANCE_ARGUMENTS, parse_guidance
from framefleet.pipeline.recipes.siblings import call_parameters


def is_schedule(name: str, value: Any) -> bool:
    """Whether a cell is meant as one: text with a bracket, in a column of a guidance scale."""
    if not isinstance(value, str) or "(" not in value:
        return False
    return "guidance_scale" in name or name in GUIDANCE_ARGUMENTS


def check_schedule(name: str, text: str, *, class_name: str, configs: Configs) -> str | Refused:
    """Return the canonical spelling of a schedule for the argument `name` of a pipeline's call.

    configs: of the model's components, by name.
    """
    if reason := _refusal(name, class_name, configs):
        return Refused(reason=reason, fix=_fix(name, class_name))
    schedule = parse_guidance(text)
    return schedule if isinstance(schedule, Refused) else str(schedule)


@kept(TypeAdapter(str | None))
def _refusal(name: str, class_name: str, configs: Configs) -> str | None:
    parameters, short = call_parameters(class_name), class_name.removesuffix("Pipeline")
    if name in ("min_guidance_scale", "max_guidance_scale"):
        return f"{short} sets a scale for each frame, the same at every step"
    if name not in GUIDANCE_ARGUMENTS:
        return f"a schedule can be given for {', '.join(GUIDANCE_ARGUMENTS)}"
    if "callback_on_step_end" not in parameters or not hasattr(class_named(class_name), "num_timesteps"):
        return f"{short} does not say which step it is at"
    is_input = "true_cfg_scale" in parameters or family_of(class_name).reads_guidance_once
    if name == "guidance_scale" and (is_input or configs.get("unet", {}).get("time_cond_proj_dim")):
        return f"{short} hands it to its network once, before the first step"
    return None


def _fix(name: str, class_name: str) -> str:
    if name == "guidance_scale" and "true_cfg_scale" in call_parameters(class_name):
        return "use a number; `true_cfg_scale`, with a negative prompt, takes a schedule"
    return "use a number"
