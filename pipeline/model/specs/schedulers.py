"""From a row's `scheduler` cell to a diffusers scheduler made from the model's own config.

As a plain script does it: `pipe.scheduler = Class.from_config(pipe.scheduler.config, **overrides)`. A cell is
a name, or a name with settings: `euler(timestep_spacing=trailing)`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from framefleet.pipeline.errors import UserError
from framefleet.pipeline.guards.mistakes import nearest
from framefleet.pipeline.model.class_cache import kept
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.refusal import shown
from framefleet.pipeline.model.specs.scheduler_names import (
    CONTINUOUS,
    DIFFUSION,
    DISTILLED,
    FLOW_MATCHING,
    FLOW_NAMES,
    FLOW_SOLVERS,
    MU_ONLY_DYNAMIC,
    SHORT_NAMES,
    STOCHASTIC,
)
from framefleet.pipeline.model.specs.scheduler_settings import checked_settings, parse_scheduler, written

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

    from framefleet.pipeline.model.specs.spec import PipelineSpec

NO_SCHEDULER = "none"  # of a pipeline that has none: Echo's loop, LTX's upsampler of latents
_SOME_STEPS = 8
_MAX_SAID = 300  # characters of a refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerChoice:
    """One noise scheduler for one model.

    overrides: config values that differ from what the model's own config gives the class.
    canonical: the one name of it that goes into the row_id; `resolve_scheduler` takes it back.
    min_steps, max_steps: bounds of `num_inference_steps`.
    """

    class_name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    canonical: str
    min_steps: int = 1
    max_steps: int = 1000


def _deciding(name: str | None, spec: PipelineSpec) -> list[Any] | None:
    if name and "(" in name:
        return None  # of settings a table may have any number
    return [name, spec.class_name, spec.scheduler_class, spec.scheduler_config]


@kept(TypeAdapter(SchedulerChoice), decided_by=_deciding)
def resolve_scheduler(name: str | None, spec: PipelineSpec) -> SchedulerChoice:
    """Return the scheduler that `name` means for this model; None is its own.

    name: diffusers' class name or a short name, which settings may follow. Raises UserError when there is
    none of that name, or when the model cannot use it.
    """
    if not spec.scheduler_class and name in (None, NO_SCHEDULER):
        return SchedulerChoice(class_name="", canonical=NO_SCHEDULER)
    if not spec.scheduler_class:
        raise UserError(f"{spec.class_name} has no noise scheduler: its steps are its own", "leave it out")
    short, settings = parse_scheduler(name or spec.scheduler_class)
    class_name, changes = _lookup(short, spec)
    if refusal := _refusal(class_name, changes, spec):
        raise UserError(f"{spec.class_name} cannot use the scheduler {short!r}: {refusal}", _usable(spec))
    settings = checked_settings(class_name, settings)
    overrides = _overrides(class_name, {**changes, **settings}, spec)
    config = {**spec.scheduler_config, **overrides}
    last = config.get("original_inference_steps", 50) if class_name in DISTILLED else None
    choice = SchedulerChoice(
        class_name=class_name,
        overrides=overrides,
        canonical=_canonical(short, class_name, settings, spec),
        # stretching the sigmas to a terminal value divides by zero when there is only one
        min_steps=2 if config.get("shift_terminal") else 1,
        max_steps=config.get("num_train_timesteps", 1000) if last is None else last,
    )
    said = _said_against(choice, spec) if settings else None
    if said and _said_against(resolve_scheduler(short, spec), spec) is None:
        raise UserError(f"{class_name} does not take these settings: {said}"[:_MAX_SAID], "correct them")
    return choice


def _said_against(choice: SchedulerChoice, spec: PipelineSpec) -> str | None:
    """Return what a scheduler says against a few steps, or None: of texts and numbers each knows its own."""
    try:
        scheduler = build(choice, class_named(spec.scheduler_class).from_config(dict(spec.scheduler_config)))
        taken = inspect.signature(scheduler.set_timesteps).parameters
        mu = {"mu": 1.0} if "mu" in taken and scheduler.config.get("use_dynamic_shifting") else {}
        scheduler.set_timesteps(min(_SOME_STEPS, choice.max_steps), **mu)
        levels = getattr(scheduler, "sigmas", scheduler.timesteps).tolist()
    except Exception as error:  # what a scheduler raises is its own; some only fail where they compute
        return str(error) or type(error).__name__
    return "its noise levels are not numbers" if any(map(math.isnan, levels)) else None


def build(choice: SchedulerChoice, base: SchedulerMixin) -> SchedulerMixin:
    """Return a scheduler of fresh state from the config of `base`, the model's own."""
    made: SchedulerMixin = class_named(choice.class_name).from_config(base.config, **choice.overrides)
    return made


def schedulers_of(pipe: Any, name: str | None, spec: PipelineSpec) -> dict[str, SchedulerMixin]:
    """Return the scheduler that a row names, made anew, as the pipeline's component; {} if it has none."""
    choice = resolve_scheduler(name, spec)
    return {"scheduler": build(choice, pipe.scheduler)} if choice.class_name else {}


def _canonical(name: str, class_name: str, settings: Mapping[str, Any], spec: PipelineSpec) -> str:
    """Return the class's name where the short one changes nothing of it, and the settings that do."""
    _, changes = _lookup(name, spec)
    plain = _overrides(class_name, changes, spec)
    telling = {
        key: value
        for key, value in settings.items()
        if _overrides(class_name, {**changes, key: value}, spec) != plain
    }
    return written(class_name if plain == _overrides(class_name, {}, spec) else name, telling)


def _lookup(name: str, spec: PipelineSpec) -> tuple[str, Mapping[str, Any]]:
    if name in SHORT_NAMES:
        return SHORT_NAMES[name]
    named = {class_name for class_name, _ in SHORT_NAMES.values()}
    known = DIFFUSION | FLOW_MATCHING | STOCHASTIC | named | {spec.scheduler_class}
    if name in known:
        return name, {}
    usable = [known for known in sorted(named) if _refusal(known, {}, spec) is None]
    near = nearest(name, [*_usable_names(spec), *usable], most=3, cutoff=0.5)
    raise UserError(
        f"no scheduler is named {shown(name)}", f"did you mean {', '.join(near)}?" if near else _usable(spec)
    )


def _overrides(class_name: str, changes: Mapping[str, Any], spec: PipelineSpec) -> dict[str, Any]:
    """Return the config changes that are needed for this class on this model, and no more."""
    config = spec.scheduler_config
    wanted: dict[str, Any] = {}
    if class_name == "PNDMScheduler":
        wanted["skip_prk_steps"] = True  # as Stable Diffusion ships it; the warm-up fails below four steps
    if steps_flow(spec.scheduler_class, spec.scheduler_config):
        shift = config.get("shift") or config.get("flow_shift") or 1.0
        if class_name in FLOW_SOLVERS:
            wanted |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
        elif class_name in FLOW_MATCHING:
            wanted["shift"] = shift  # UniPC's config calls it flow_shift
    wanted |= changes
    initial = inspect.signature(class_named(class_name).__init__).parameters if wanted else {}
    return {k: v for k, v in wanted.items() if config.get(k, initial[k].default) != v}


def _refusal(class_name: str, changes: Mapping[str, Any], spec: PipelineSpec) -> str | None:
    """Return why the model cannot use the class, or None."""
    own = class_name == spec.scheduler_class and not changes
    if spec.family.schedulers and class_name not in spec.family.schedulers:
        return "its denoising loop was written for its own kind"
    if missing := _missing_packages(class_name):
        return f"it needs the Python package {' and '.join(missing)}, which is not installed"
    return None if own or spec.family.schedulers else _unfit(class_name, changes, spec)


def _unfit(class_name: str, changes: Mapping[str, Any], spec: PipelineSpec) -> str | None:
    """Return why another class than the model's own does not step this kind of model, or None."""
    if not steps_flow(spec.scheduler_class, spec.scheduler_config):
        if spec.scheduler_config.get("timestep_type") == "continuous" and class_name != CONTINUOUS:
            return f"the model's timesteps are logarithms of the noise level, which only {CONTINUOUS} gives"
        return None if class_name in DIFFUSION else "it is not for models that predict noise"
    if class_name not in FLOW_SOLVERS | FLOW_MATCHING or (changes and class_name in FLOW_SOLVERS):
        return "the model was trained with flow matching, and this one does not step such models"
    if unsent := _not_taken(class_name, spec):
        return f"the pipeline sets `{unsent}`, which this one does not take"
    return None


def steps_flow(class_name: str, config: Mapping[str, Any]) -> bool:
    """Return whether a scheduler steps models that predict a velocity between noise and data."""
    named = class_name.startswith(FLOW_NAMES)
    return named or bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == "flow_prediction"


def _not_taken(class_name: str, spec: PipelineSpec) -> str | None:
    """Return the first argument that the pipeline hands to `set_timesteps` and the class refuses."""
    dynamic = bool(spec.scheduler_config.get("use_dynamic_shifting"))
    taken = inspect.signature(class_named(class_name).set_timesteps).parameters
    for sent in (*spec.family.sends, *(["mu"] if dynamic else [])):
        if sent not in taken or (sent == "mu" and not dynamic and class_name in MU_ONLY_DYNAMIC):
            return sent
    linear = spec.scheduler_config.get("time_shift_type") == "linear"
    return "time_shift_type: linear" if dynamic and linear and class_name in FLOW_SOLVERS else None


def _usable(spec: PipelineSpec) -> str:
    """Return the fix: the short names that do work for this model."""
    names = _usable_names(spec)
    others = f"use one of {', '.join(names)}; or " if names else ""
    return f"{others}leave it out for the model's own {spec.scheduler_class}"


def _usable_names(spec: PipelineSpec) -> list[str]:
    return [name for name, found in SHORT_NAMES.items() if _refusal(*found, spec) is None]


def _missing_packages(class_name: str) -> list[str]:
    """Return what diffusers lacks for the class: it then exports a stand-in that fails when used."""
    found = class_named(class_name)
    if not found.__module__.startswith("diffusers.utils.dummy"):
        return []
    return [name for name in found._backends if name != "torch"]
