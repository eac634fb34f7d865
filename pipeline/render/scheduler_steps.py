"""The steps of one row's noise scheduler: latents that are kept, and log-probabilities of what was drawn.

A step of a stochastic scheduler draws its sample from a normal distribution. Where its mean lies and how wide
it is, is what the scheduler itself computes: the step is made again on a copy, with noise that is 0 and then
1 everywhere. So nothing here knows a scheduler's formula.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from framefleet.pipeline.errors import Refused, RowError, count_text
from framefleet.pipeline.hooks.tree import flatten
from framefleet.pipeline.model.specs.schedulers import SchedulerChoice, resolve_scheduler, with_steps
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.frames.result import KeptSteps
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.rows.tables.rows import KeepCheck

_DRAWS = {torch.randn: (torch.zeros, torch.ones), torch.randn_like: (torch.zeros_like, torch.ones_like)}
NO_KEEP = "leave `keep` out of this job"
ENCODE_PROMPT = "encode_prompt"
_NO_SIGMAS = "leave out keep.sigmas: the timesteps of each row are stored"
_NO_EMBEDDINGS = "leave out keep.text_embeddings"
_STOCHASTIC = (
    "use a stochastic scheduler: ddim with eta above 0, ddpm, euler_a, dpmpp_2m_sde, or "
    "flow_euler(stochastic_sampling=true)"
)
_TRIED = 4  # steps: the first or the last adds none in some schedulers
_CACHED = 256
_HALVES = (torch.float16, torch.bfloat16)
_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def step_log_prob(scheduler: Any, prev_sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return the log-probability density of `prev_sample` as what a step of a stochastic scheduler returns.

    args, kwargs: of `scheduler.step`: model_output, timestep, sample, ... The scheduler stays as it is, and
    gradients reach the model's output. For each entry of the first dimension, the mean over all of its values
    to which the step adds noise, as in DDPO (Black et al. 2023); computed in double precision, from a step in
    float32. NaN where it adds none, or draws more than once.
    """
    step = getattr(type(scheduler).step, "__wrapped__", type(scheduler).step)
    bound = inspect.signature(step).bind(scheduler, *args, **kwargs).arguments
    precise: dict[str, Any] = {
        name: value.float() if isinstance(value, Tensor) and value.dtype in _HALVES else value
        for name, value in bound.items()
        if name != "self"
    }
    precise |= precise.pop("kwargs", {})
    mean, num_draws = _stepped(scheduler, step, 0, precise)
    with torch.no_grad():
        one, _ = _stepped(scheduler, step, 1, precise)
        width = (one - mean).abs()
    is_noisy = (width > 0) & (num_draws == 1)
    width = torch.where(is_noisy, width, torch.ones_like(width))
    density = -0.5 * ((prev_sample.double() - mean) / width) ** 2 - width.log() - _HALF_LOG_TAU
    dims = tuple(range(1, density.ndim))
    num_noisy = is_noisy.sum(dims)
    return torch.where(is_noisy, density, 0.0).sum(dims) / torch.where(num_noisy > 0, num_noisy, math.nan)


def keep_check(keep: KeptSteps, spec: PipelineSpec) -> KeepCheck:
    """Return what says of a model's rows, before they are rendered, that their steps cannot be stored."""

    @lru_cache(_CACHED)
    def adds_noise(scheduler: str, num_steps: int, **eta: float) -> bool:
        tried = with_steps(resolve_scheduler(scheduler, spec), spec, num_steps)
        sample, step = torch.ones(1, 4, 2, 2), inspect.signature(type(tried).step).parameters
        eta = {name: value for name, value in eta.items() if name in step}
        try:
            for timestep in tried.timesteps:
                if not step_log_prob(tried, sample, sample, timestep, sample, **eta).isnan().all():
                    return True
                tried.step(sample, timestep, sample, **eta)
        except Exception:  # it takes more, or other shapes: only the row itself can say
            return True
        return False

    @lru_cache(_CACHED)
    def has_sigmas(scheduler: str, num_steps: int) -> bool:
        return hasattr(with_steps(resolve_scheduler(scheduler, spec), spec, num_steps), "sigmas")

    def check(recipe: Recipe, choice: SchedulerChoice, arguments: Mapping[str, Any]) -> Refused | None:
        if not choice.class_name:
            return Refused(reason=f"{spec.class_name} has no noise scheduler", fix=NO_KEEP)
        num_steps = max(choice.min_steps, min(arguments.get("num_inference_steps", _TRIED), _TRIED))
        if keep.sigmas and not has_sigmas(choice.canonical, num_steps):
            return Refused(reason=_no_sigmas(choice.class_name), fix=_NO_SIGMAS)
        if keep.text_embeddings and not recipe.is_own and not hasattr(spec.pipeline_class, ENCODE_PROMPT):
            return Refused(reason=f"keep: {spec.class_name} has no {ENCODE_PROMPT}", fix=_NO_EMBEDDINGS)
        if not keep.log_probs or recipe.is_own:  # whose calls may have any arguments
            return None
        eta = {"eta": arguments["eta"]} if "eta" in arguments else {}
        if adds_noise(choice.canonical, num_steps, **eta):
            return None
        reason = f"keep.log_probs is set, and {choice.class_name} adds no noise in any step of this row"
        return Refused(reason=reason, fix=_STOCHASTIC)

    return check


def _no_sigmas(scheduler: str | None) -> str:
    return f"keep.sigmas is set, and {scheduler} has none"


class StepTrace:
    """Follows a scheduler from its first step to its last."""

    def __init__(self, scheduler: Any, keep: KeptSteps) -> None:
        """Has the scheduler, which is one row's own, report its steps from now on."""
        self._scheduler, self._keep = scheduler, keep
        self._latents: dict[int, Tensor] = {}
        self._timesteps: list[Any] = []
        self._log_probs: list[Tensor] = []
        self._sigmas: Any = None
        self._texts: dict[str, Tensor] = {}
        kind = type(scheduler)

        @functools.wraps(kind.step)  # pipelines look at its parameters
        def step(own: Any, *args: Any, **kwargs: Any) -> Any:
            return self._follow(own, kind.step, args, kwargs)

        # A class, and not an attribute: a copy of the scheduler, as some pipelines make, is not followed.
        scheduler.__class__ = type(kind.__name__, (kind,), {"step": step, "__module__": kind.__module__})

    def note_texts(self, pipe: Any) -> None:
        """Keep the tensors that calls of `encode_prompt` of a row's own pipeline return from now on."""
        encode = getattr(pipe, ENCODE_PROMPT, None)
        if encode is None:
            raise RowError(f"keep: {type(pipe).__name__} has no {ENCODE_PROMPT}", _NO_EMBEDDINGS)
        calls = itertools.count()

        @functools.wraps(encode)
        def noted(*args: Any, **kwargs: Any) -> Any:
            encoded = encode(*args, **kwargs)
            call = next(calls)
            for place, leaf in enumerate(flatten(encoded)[0]):
                if isinstance(leaf, Tensor):
                    self._texts[f"text_embeddings.{call}.{place}"] = leaf.detach().clone()
            return encoded

        setattr(pipe, ENCODE_PROMPT, noted)

    def fields(self) -> dict[str, Any]:
        """Return what is kept, by its names in a clip's extras. Raises RowError if something is missing."""
        num_steps = len(self._timesteps)
        if not num_steps:
            raise RowError("keep: the row's noise scheduler made no step", NO_KEEP)
        timesteps = [torch.as_tensor(one).detach().double().flatten()[0] for one in self._timesteps]
        steps: dict[str, Any] = {"timesteps": torch.stack(timesteps), **self._texts}
        if self._keep.text_embeddings and not self._texts:
            raise RowError(f"keep: nothing called {ENCODE_PROMPT} for this row", _NO_EMBEDDINGS)
        if self._keep.sigmas:
            if self._sigmas is None:
                raise RowError(_no_sigmas(type(self._scheduler).__name__), _NO_SIGMAS)
            steps["sigmas"] = torch.as_tensor(self._sigmas)
        wanted = range(num_steps + 1) if self._keep.latents == "all" else self._keep.latents
        for number in wanted:
            place = number + num_steps + 1 if number < 0 else number
            if place not in self._latents:
                raise RowError(
                    f"keep.latents: there is no step {number} of a row with {count_text(num_steps, 'step')}",
                    f"use 0 to {num_steps}, or -1 for the last",
                )
            steps[f"latents.{number}"] = self._latents[place]
        if self._keep.log_probs:
            steps["log_probs"] = torch.stack(self._log_probs)
            if bool(steps["log_probs"].isnan().all()):
                raise RowError(
                    f"keep.log_probs: {type(self._scheduler).__name__} adds no noise in any step of this row",
                    _STOCHASTIC,
                )
        return steps

    def _follow(self, own: Any, step: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if own is not self._scheduler:
            return step(own, *args, **kwargs)
        bound = inspect.signature(step).bind(own, *args, **kwargs).arguments
        before = _copy_of(own)
        result = step(own, *args, **kwargs)
        prev_sample = result[0] if isinstance(result, tuple) else result.prev_sample
        if not self._timesteps:
            self._note(0, bound["sample"])
            self._sigmas = getattr(own, "sigmas", None)
        self._timesteps.append(bound["timestep"])
        self._note(len(self._timesteps), prev_sample)
        if self._keep.log_probs:
            with torch.no_grad():
                self._log_probs.append(step_log_prob(before, prev_sample, *args, **kwargs)[0])
        return result

    def _note(self, number: int, latents: Tensor) -> None:
        mode = self._keep.latents
        if mode == "all" or number in mode or any(one < 0 for one in mode):
            self._latents[number] = latents.detach().clone()  # pipelines may write to theirs
        # Of those counted from the end, no later step can make this one.
        if mode != "all" and (passed := number + min(mode, default=0)) < number and passed not in mode:
            self._latents.pop(passed, None)


class _Noise(TorchFunctionMode):
    """Within its context normal noise is one number everywhere, and no generator is used up."""

    def __init__(self, value: Literal[0, 1]) -> None:
        super().__init__()
        self._value, self.num_draws = value, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS:
            self.num_draws += 1
            kwargs = {name: value for name, value in kwargs.items() if name != "generator"}
            func = _DRAWS[func][self._value]
        return func(*args, **kwargs)


def _stepped(scheduler: Any, step: Any, noise: Literal[0, 1], bound: dict[str, Any]) -> tuple[Tensor, int]:
    """Return what a step returns with this noise, as doubles, and how often it drew noise."""
    with _Noise(noise) as drawn:
        result = step(_copy_of(scheduler), **{**bound, "return_dict": False})
    return result[0].double(), drawn.num_draws


def _copy_of(scheduler: Any) -> Any:
    """Return a copy whose steps leave the scheduler as it is. Tensors are shared: steps replace theirs."""
    own = copy.copy(scheduler)
    vars(own).update(
        {name: copy.copy(value) for name, value in vars(own).items() if isinstance(value, list | dict)}
    )
    return own
