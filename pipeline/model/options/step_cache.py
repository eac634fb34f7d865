"""Step caches of diffusers and cache-dit: on for one row, off after it, so that nothing stays for the next.

They store outputs of earlier steps in the modules, and decide once for the whole batch. So rows with a cache
run alone.
"""

from __future__ import annotations

import inspect
import os
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from framefleet.pipeline.errors import ModelError, RenderError
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.model.families.registry import family_of
from framefleet.pipeline.model.options.pipe_calls import Code, New, PipeCall
from framefleet.pipeline.model.options.schema import Cache, CacheDit, Mag, TaylorSeer
from framefleet.pipeline.model.specs.dtypes import torch_dtype

CONFIGS = {
    "first_block": "FirstBlockCacheConfig",
    "taylor_seer": "TaylorSeerCacheConfig",
    "pyramid": "PyramidAttentionBroadcastConfig",
    "faster": "FasterCacheConfig",
    "mag": "MagCacheConfig",
    "sea": "SeaCacheConfig",
    "text_kv": "TextKVCacheConfig",
}
CACHE_DIT = "cache_dit"  # its module
TIMED = ("pyramid", "faster")  # these ask the pipeline for its current timestep
# What a pipeline's code must contain for a cache: it names the forward's rows, or also its step.
_NAMES_ROWS, _NAMES_STEP = "cache_context", "step_index"
_NEEDED: Mapping[str, str | None] = {"sea": _NAMES_STEP, "mag": None, "text_kv": None, CACHE_DIT: None}
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)  # one field of DBCacheConfig is a tensor
TIMESTEP = Code("lambda: pipe.current_timestep")


def enabling(
    cache: Cache, component: str, *, steps: int, timestep: Callable[[], Any] | Code = TIMESTEP
) -> PipeCall:
    """Return the call that switches a cache on for one row. steps: the row's num_inference_steps."""
    arguments: dict[str, Any] = cache.model_dump(exclude={"type"}, exclude_none=True)
    if isinstance(cache, Mag | CacheDit):
        arguments["num_inference_steps"] = steps
    if isinstance(cache, CacheDit):
        config = New(module=CACHE_DIT, name="DBCacheConfig", arguments=arguments)
        settings = {"cache_config": config}
        return PipeCall(component=component, module=CACHE_DIT, method="enable_cache", arguments=settings)
    if isinstance(cache, TaylorSeer):
        arguments["taylor_factors_dtype"] = torch_dtype(cache.taylor_factors_dtype)
    if cache.type in TIMED:
        arguments["current_timestep_callback"] = timestep
    config = New(module="diffusers", name=CONFIGS[cache.type], arguments=arguments)
    return PipeCall(component=component, method="enable_cache", arguments={"config": config})


class StepCache:
    def __init__(self, cache: Cache, modules: Mapping[str, Any]) -> None:
        self._cache, self._modules = cache, modules
        if isinstance(cache, CacheDit):
            _cache_dit()

    def start(self, *, steps: int, pipe: Callable[[], Any]) -> None:
        """Switch it on for a row. pipe: returns the row's own pipeline while it runs."""

        def timestep() -> Any:
            now = getattr(pipe(), "current_timestep", None)
            if now is None:
                asks = f"the cache {self._cache.type} needs the timestep of the row's pipeline"
                fix = "use another cache, or the recipe generate"
                raise RenderError(f"{asks}, but the recipe runs another pipeline", fix)
            return now

        for name in self._modules:
            call = enabling(self._cache, name, steps=steps, timestep=timestep)
            call.make(SimpleNamespace(**self._modules))

    def stop(self) -> None:
        for module in self._modules.values():
            if isinstance(self._cache, CacheDit):
                _cache_dit().disable_cache(module)
            elif module.is_cache_enabled:
                module.disable_cache()


def check_cache(cache: Cache, denoisers: Mapping[str, Any], *, pipeline_class: type) -> None:
    """Raise ModelError for a cache that the model does not take, or that would do nothing."""
    class_name = pipeline_class.__name__
    if cache.type in TIMED and not hasattr(pipeline_class, "current_timestep"):
        raise ModelError(f"cache {cache.type}: {class_name} has no `current_timestep`", "use another cache")
    if cache.type == "faster" and not (cache.is_guidance_distilled or family_of(class_name).joins_prompts):
        problem = f"cache faster needs both prompts in one forward, which {class_name} does not do"
        fix = "use another cache, or set `is_guidance_distilled: true`, which only skips attention"
        raise ModelError(problem, fix)
    if isinstance(cache, CacheDit):
        _check_cache_dit(cache)
    for component, module in denoisers.items():
        name = type(module).__name__
        if not isinstance(cache, CacheDit) and not hasattr(module, "enable_cache"):
            raise ModelError(f"cache: {name} does not take the caches of diffusers", "leave it out")
        try:
            enabling(cache, component, steps=1).make(SimpleNamespace(**denoisers))
        except (ValueError, KeyError, IndexError, AssertionError, re.error) as error:  # e.g. a bad pattern
            raise ModelError(f"cache {cache.type} does not fit {name}: {error}", "use another") from error
        if isinstance(cache, CacheDit):
            StepCache(cache, {component: module}).stop()
            continue
        is_hooked = any(hooks_of(part) for part in module.modules() if part is not module)
        callbacks = [getattr(hook, "raw_vision_callback", module) for hook in hooks_of(module).values()]
        module.disable_cache()
        if None in callbacks:  # SeaCache only finds the latents of networks that it knows
            raise ModelError(f"cache {cache.type} does not know {name}'s latents", "use another cache")
        if not is_hooked:
            problem = f"cache {cache.type} finds none of its default names in {name}, so it would do nothing"
            fix = "name its modules in cache_identifiers, set `use_lite_mode: true`, or use another cache"
            raise ModelError(problem, fix)


def _check_cache_dit(cache: CacheDit) -> None:
    """Raise ModelError if cache-dit is not installed, or does not take these parameters or values."""
    try:
        made = _cache_dit().DBCacheConfig
    except ImportError as error:
        problem = f"cache cache_dit needs the Python package cache-dit: {error}"
        raise ModelError(problem, "pip install cache-dit, on every machine") from None
    hints = typing.get_type_hints(made)
    for name, value in cache.arguments.items():
        if name not in hints or name == "num_inference_steps":
            raise ModelError(f"cache cache_dit takes no {name!r}", did_you_mean(name, hints))
        try:
            TypeAdapter(hints[name], config=_STRICT).validate_python(value)
        except ValidationError:
            raise ModelError(f"cache cache_dit: {name} is {value!r}", f"its type is {hints[name]}") from None


def _cache_dit() -> Any:
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")  # else it logs ten lines for each row
    return import_module(CACHE_DIT)


def check_called(cache: Cache, called: Iterable[type], *, own: type) -> None:
    """Raise ModelError if a cache does not work in a pipeline that the recipe calls.

    called: these pipelines. own: the model's. Reads their code, because diffusers has no attribute for this
    (0.42).
    """
    needed = _NEEDED.get(cache.type, _NAMES_ROWS)
    for pipeline_class in called:
        is_named = needed is None or needed in inspect.getsource(pipeline_class.__call__)
        if not (pipeline_class is own if cache.type in TIMED else is_named):
            problem = f"cache {cache.type} does not work in {pipeline_class.__name__}, which the recipe calls"
            raise ModelError(problem, "use `cache: {type: mag, ...}`, another recipe, or no cache")


def hooks_of(module: Any) -> Mapping[str, Any]:
    """Return diffusers' hooks on one module; it has no public name for them (0.42)."""
    registry = getattr(module, "_diffusers_hook", None)
    return registry.hooks if registry else {}
