"""From a row's `scheduler` cell to a diffusers scheduler made from the model's own config.

As in a plain script: `pipe.scheduler = Class.from_config(pipe.scheduler.config, **overrides)`. A cell is a
name, or a name with settings of the scheduler's class: `euler(timestep_spacing=trailing)`. Cells are not
trusted: settings are only scalars, and none decides how much memory is used.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from framefleet.pipeline.errors import UserError, shown
from framefleet.pipeline.guards.mistakes import nearest
from framefleet.pipeline.model.class_cache import disk_cached
from framefleet.pipeline.model.registry import class_named, is_standin
from framefleet.pipeline.model.specs.signature import Scalar, ScalarKind
from framefleet.pipeline.model.specs.spec import PipelineSpec

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

_KARRAS = {"use_karras_sigmas": True}
# Every entry was tested with tiny pipelines: with more steps, its clips converge to the model's own.
SHORT_NAMES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "cogvideox_ddim": ("CogVideoXDDIMScheduler", {}),
    "cogvideox_dpm": ("CogVideoXDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "dpm2": ("KDPM2DiscreteScheduler", {}),
    "dpm2_a": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpm2_karras": ("KDPM2DiscreteScheduler", _KARRAS),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", _KARRAS),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_2m_sde_karras": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"} | _KARRAS),
    "dpmpp_2s": ("DPMSolverSinglestepScheduler", {}),
    "dpmpp_sde": ("DPMSolverSDEScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "euler_karras": ("EulerDiscreteScheduler", _KARRAS),
    "flow_euler": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": False}),
    "flow_heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "heun_karras": ("HeunDiscreteScheduler", _KARRAS),
    "lcm": ("LCMScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "lms_karras": ("LMSDiscreteScheduler", _KARRAS),
    "pndm": ("PNDMScheduler", {}),
    "sa_solver": ("SASolverScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "unipc_karras": ("UniPCMultistepScheduler", _KARRAS),
}

# Solvers that also integrate flow-matching models, according to their configs.
_FLOW_SOLVERS = frozenset(
    f"{name}Scheduler"
    for name in ("DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep")
)
_FLOW_MATCHING = frozenset({"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"})
_OTHERS = frozenset({"FlowMatchLCMScheduler", "LTXEulerAncestralRFScheduler"})  # of some models
_FLOW_NAMES = ("FlowMatch", "LTXEuler")  # prefixes of classes for flow-matching models

# They assert `use_dynamic_shifting` if a pipeline passes `mu` (UniPC takes it either way).
_MU_ONLY_DYNAMIC = _FLOW_SOLVERS - {"UniPCMultistepScheduler"}

# diffusers' KarrasDiffusionSchedulers, and three more for the same models; not EDMEuler, which is for another
# parametrisation and does not converge.
_DIFFUSION = _FLOW_SOLVERS | {
    *("DDIMScheduler", "DDPMScheduler", "DPMSolverSDEScheduler", "EulerAncestralDiscreteScheduler"),
    *("EulerDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
    *("KDPM2DiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler", "PNDMScheduler"),
    *("SASolverScheduler", "TCDScheduler"),
}

# The only class with `timestep_type: continuous`, with which Stable Video Diffusion was trained.
_CONTINUOUS = "EulerDiscreteScheduler"

# Distilled for at most `original_inference_steps` steps; with more, rendering fails.
_DISTILLED = frozenset({"LCMScheduler", "TCDScheduler"})

NO_SCHEDULER = "none"  # for a pipeline without one: Echo's loop, LTX's upsampler of latents
_SOME_STEPS = 8
_MAX_MESSAGE = 300  # characters of a refusal
_CELL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)
_SETTING = re.compile(r"\s*(\w+)\s*=\s*([\w.+-]+)\s*")
_WORDS = {"true": True, "false": False, "none": None, "null": None}
_TRAINED = frozenset({"num_train_timesteps", "trained_betas"})  # the model's own; arrays get this length
_MOST = 1e6  # far beyond every shift, order and offset; steps go to 1,000
# The type of a setting's annotation or default, and what its value must be.
_KINDS: dict[ScalarKind, tuple[type, str]] = {
    "bool": (bool, "true or false"),
    "int": (int, f"a whole number of at most {_MOST:,.0f}"),
    "float": (float, f"a number of at most {_MOST:,.0f}"),
    "str": (str, "a word"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerChoice:
    """One noise scheduler for one model."""

    class_name: str
    # Config values that differ from those in the model's own config.
    overrides: Mapping[str, Any] = field(default_factory=dict)
    canonical: str  # its one name in the row_id; `resolve_scheduler` accepts it
    min_steps: int = 1  # bounds of `num_inference_steps`
    max_steps: int = 1000


def _deciding(name: str | None, spec: PipelineSpec) -> list[Any] | None:
    has_settings = name is not None and "(" in name  # a table may have any number of these
    return None if has_settings else [name, spec.class_name, spec.scheduler_class, spec.scheduler_config]


@disk_cached(TypeAdapter(SchedulerChoice), decided_by=_deciding, asks_libraries=True)
def resolve_scheduler(name: str | None, spec: PipelineSpec) -> SchedulerChoice:
    """Return the scheduler for a cell and this model; None means its own. Raises UserError."""
    if not spec.scheduler_class and name in (None, NO_SCHEDULER):
        return SchedulerChoice(class_name="", canonical=NO_SCHEDULER)
    if not spec.scheduler_class:
        raise UserError(f"{spec.class_name} has no noise scheduler: it makes its own steps", "leave it out")
    short, settings = parse_scheduler(name or spec.scheduler_class)
    class_name, changes = _lookup(short, spec)
    if refusal := _refusal(class_name, changes, spec):
        raise UserError(f"{spec.class_name} cannot use the scheduler {short!r}: {refusal}", _usable(spec))
    settings = _checked_settings(class_name, settings)
    overrides, plain = (_overrides(class_name, {**changes, **more}, spec) for more in (settings, {}))
    # The class's name if the short name changes no config value, and the settings that change one.
    deciding = [
        f"{key}={value}"
        for key, value in sorted(settings.items())
        if _overrides(class_name, {**changes, key: value}, spec) != plain
    ]
    canonical = class_name if plain == _overrides(class_name, {}, spec) else short
    config = {**spec.scheduler_config, **overrides}
    last = config.get("num_train_timesteps", 1000)
    if class_name in _DISTILLED:
        last = config.get("original_inference_steps", 50)
    elif last == 1:  # time goes from 0 to 1 in any number of steps (ACE-Step, Stable Audio 3)
        last = 1000
    if class_name == "PNDMScheduler" and not config.get("skip_prk_steps"):
        least = 4  # its warm-up fails with fewer
    else:  # with a single sigma, stretching to a terminal value divides by zero
        least = 2 if config.get("shift_terminal") else 1
    choice = SchedulerChoice(
        class_name=class_name,
        overrides=overrides,
        canonical=f"{canonical}({', '.join(deciding)})" if deciding else canonical,
        min_steps=least,
        max_steps=last,
    )
    fault = _fault_of(choice, spec) if settings else None
    if fault and _fault_of(resolve_scheduler(short, spec), spec) is None:
        raise UserError(f"{class_name} does not take these settings: {fault}"[:_MAX_MESSAGE], "correct them")
    return choice


def _fault_of(choice: SchedulerChoice, spec: PipelineSpec) -> str | None:
    """Return the scheduler's error for a few steps, or None: each class has its own rules for settings."""
    try:
        scheduler = with_steps(choice, spec, min(_SOME_STEPS, choice.max_steps))
        levels = getattr(scheduler, "sigmas", scheduler.timesteps).tolist()
    except Exception as error:  # a scheduler may raise anything; some only fail while they compute
        return str(error) or type(error).__name__
    return "its noise levels are not numbers" if any(map(math.isnan, levels)) else None


def with_steps(choice: SchedulerChoice, spec: PipelineSpec, num_steps: int) -> Any:
    """Return a scheduler before its first step. Errors of its class are not caught."""
    scheduler: Any = build(choice, class_named(spec.scheduler_class).from_config(dict(spec.scheduler_config)))
    parameters = inspect.signature(scheduler.set_timesteps).parameters
    mu = {"mu": 1.0} if "mu" in parameters and scheduler.config.get("use_dynamic_shifting") else {}
    scheduler.set_timesteps(num_steps, **mu)
    return scheduler


def build(choice: SchedulerChoice, base: SchedulerMixin) -> SchedulerMixin:
    """Return a new scheduler from the config of `base`, the model's own."""
    return class_named(choice.class_name).from_config(base.config, **choice.overrides)


def schedulers_of(pipe: Any, name: str | None, spec: PipelineSpec) -> dict[str, SchedulerMixin]:
    """Return a new scheduler for a row, as the pipeline's component; {} if the pipeline has none."""
    choice = resolve_scheduler(name, spec)
    return {"scheduler": build(choice, pipe.scheduler)} if choice.class_name else {}


def parse_scheduler(cell: str) -> tuple[str, dict[str, Scalar | None]]:
    """Return the name and the unchecked settings in a cell. Raises UserError."""

    def value_of(text: str) -> Scalar | None:
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
        for number in (int, float):
            with contextlib.suppress(ValueError):
                return number(text)
        return text

    if "(" not in cell:
        return cell, {}
    whole = _CELL.fullmatch(cell)
    parts = whole[2].split(",") if whole and whole[2].strip() else []
    settings = [_SETTING.fullmatch(part) for part in parts]
    if whole is None or not all(settings):
        name = cell.partition("(")[0].strip() or "name"
        fix = f"write `{name}(setting=value, ...)`, or only `{name}`"
        raise UserError(f"the scheduler's settings in {shown(cell)} cannot be read", fix)
    return whole[1], {match[1]: value_of(match[2]) for match in settings if match}


def _checked_settings(class_name: str, settings: Mapping[str, Scalar | None]) -> dict[str, Scalar | None]:
    """Return the settings for the scheduler's class. Raises UserError for those that it does not take."""
    if not settings:
        return {}
    parameters = inspect.signature(class_named(class_name).__init__, eval_str=True).parameters
    settable = {}
    for name, parameter in parameters.items():
        # From its annotation, which may list words, or else from its default.
        members = typing.get_args(parameter.annotation) or (parameter.annotation,)
        types = {type(member) if isinstance(member, str) else member for member in members}
        kinds = [kind for kind, (made, _) in _KINDS.items() if made in {*types, type(parameter.default)}]
        if kinds and name not in _TRAINED:
            settable[name] = kinds[-1], members, parameter.default is None or type(None) in members
    checked = {}
    for key, value in settings.items():
        if key not in settable:
            near = nearest(key, [*settable])
            fix = f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(settable))}"
            raise UserError(f"{class_name} has no setting {shown(key)} that a row may set", fix)
        kind, members, may_be_none = settable[key]
        words = [member for member in members if isinstance(member, str)]
        if not (may_be_none if value is None else _fits(value, kind, words)):
            fix = f"use {' or '.join(words) or _KINDS[kind][1]}"
            raise UserError(f"{key} of {class_name} cannot be {shown(value)}", fix)
        checked[key] = float(value) if kind == "float" and value is not None else value
    return checked


def _fits(value: Scalar, kind: ScalarKind, words: list[str]) -> bool:
    if isinstance(value, bool) or kind == "bool":
        return isinstance(value, bool) and kind == "bool"
    if isinstance(value, str):
        return kind == "str" and (not words or value in words)
    is_number = isinstance(value, int) or kind == "float"
    return kind in ("int", "float") and is_number and abs(value) <= _MOST  # False for NaN


def _lookup(name: str, spec: PipelineSpec) -> tuple[str, Mapping[str, Any]]:
    if name in SHORT_NAMES:
        return SHORT_NAMES[name]
    classes = {class_name for class_name, _ in SHORT_NAMES.values()}
    if name in _DIFFUSION | _FLOW_MATCHING | _OTHERS | classes | {spec.scheduler_class}:
        return name, {}
    usable = [class_name for class_name in sorted(classes) if _refusal(class_name, {}, spec) is None]
    near = nearest(name, [*_usable_names(spec), *usable], most=3, cutoff=0.5)
    fix = f"did you mean {', '.join(near)}?" if near else _usable(spec)
    raise UserError(f"no scheduler is named {shown(name)}", fix)


def _overrides(class_name: str, changes: Mapping[str, Any], spec: PipelineSpec) -> dict[str, Any]:
    """Return only the config changes that this class needs for this model."""
    config = spec.scheduler_config
    wanted: dict[str, Any] = {}
    if class_name == spec.scheduler_class:
        pass  # other classes need values that this config does not have
    elif class_name == "PNDMScheduler":
        wanted = {"skip_prk_steps": True}  # as in Stable Diffusion's folders
    elif steps_flow(spec.scheduler_class, config):
        shift = config.get("shift") or config.get("flow_shift") or 1.0  # it is flow_shift in UniPC's config
        if class_name in _FLOW_SOLVERS:
            wanted = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
        elif class_name in _FLOW_MATCHING:
            wanted = {"shift": shift}
    wanted |= changes
    initial = inspect.signature(class_named(class_name).__init__).parameters if wanted else {}
    return {k: v for k, v in wanted.items() if config.get(k, initial[k].default) != v}


def _refusal(class_name: str, changes: Mapping[str, Any], spec: PipelineSpec) -> str | None:
    if spec.family.schedulers and class_name not in spec.family.schedulers:
        return "its denoising loop only works with its own scheduler"
    made = class_named(class_name)
    if is_standin(made):  # the class needs packages that are not installed
        missing = " and ".join(name for name in made._backends if name != "torch")
        return f"it needs the Python package {missing}, which is not installed"
    if spec.family.schedulers or (class_name == spec.scheduler_class and not changes):
        return None
    config = spec.scheduler_config
    if not steps_flow(spec.scheduler_class, config):
        if config.get("timestep_type") == "continuous" and class_name != _CONTINUOUS:
            return f"its timesteps are logarithms of the noise level, and only {_CONTINUOUS} supports that"
        return None if class_name in _DIFFUSION else "it is not for models that predict noise"
    if class_name not in _FLOW_SOLVERS | _FLOW_MATCHING or (changes and class_name in _FLOW_SOLVERS):
        return "the model was trained with flow matching, which this scheduler does not support"
    dynamic = bool(config.get("use_dynamic_shifting"))
    parameters = inspect.signature(made.set_timesteps).parameters
    unsent = [
        name
        for name in (*spec.family.sends, *(["mu"] if dynamic else []))
        if name not in parameters or (name == "mu" and not dynamic and class_name in _MU_ONLY_DYNAMIC)
    ]
    if dynamic and config.get("time_shift_type") == "linear" and class_name in _FLOW_SOLVERS:
        unsent.append("time_shift_type: linear")
    return f"the pipeline sets `{unsent[0]}`, which this scheduler does not take" if unsent else None


def steps_flow(class_name: str, config: Mapping[str, Any]) -> bool:
    """Return whether a scheduler is for models that predict a velocity between noise and data."""
    states_flow = config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    return class_name.startswith(_FLOW_NAMES) or bool(states_flow)


def _usable(spec: PipelineSpec) -> str:
    names = _usable_names(spec)
    others = f"use one of {', '.join(names)}; or " if names else ""
    return f"{others}leave it out for the model's own {spec.scheduler_class}"


def _usable_names(spec: PipelineSpec) -> list[str]:
    return [name for name, scheduler in SHORT_NAMES.items() if _refusal(*scheduler, spec) is None]
