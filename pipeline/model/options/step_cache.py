"""Step caches of diffusers: on for one row, off after it, so that nothing of a row is left for the next.

They keep what blocks returned at earlier steps in the modules, and decide once for the whole batch: a row
with a cache therefore runs alone.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from framefleet.pipeline.errors import ModelError, RenderError
from framefleet.pipeline.model.families.registry import family_of
from framefleet.pipeline.model.options.pipe_calls import Code, New
from framefleet.pipeline.model.options.schema import Cache, Mag, TaylorSeer
from framefleet.pipeline.model.specs.dtypes import torch_dtype

CONFIGS = {
    "first_block": "FirstBlockCacheConfig",
    "taylor_seer": "TaylorSeerCacheConfig",
    "mag": "MagCacheConfig",
    "pyramid": "PyramidAttentionBroadcastConfig",
    "faster": "FasterCacheConfig",
    "sea": "SeaCacheConfig",
    "text_kv": "TextKVCacheConfig",
}
TIMED = ("pyramid", "faster")  # ask the pipeline for its current timestep
# What a pipeline's code has to have for a cache: it names the rows of a forward, or its step as well.
_NAMES_ROWS, _NAMES_STEP = "cache_context", "step_index"
_NEEDED: Mapping[str, str | None] = {"sea": _NAMES_STEP, "mag": None, "text_kv": None}
TIMESTEP = Code("lambda: pipe.current_timestep")


def cache_config(cache: Cache, *, steps: int, timestep: Callable[[], Any] | Code = TIMESTEP) -> New:
    """Return diffusers' config of a cache for one row. steps: the row's num_inference_steps."""
    arguments: dict[str, Any] = cache.model_dump(exclude={"type"}, exclude_none=True)
    if isinstance(cache, Mag):
        arguments["num_inference_steps"] = steps
    if isinstance(cache, TaylorSeer):
        arguments["taylor_factors_dtype"] = torch_dtype(cache.taylor_factors_dtype)
    if cache.type in TIMED:
        arguments["current_timestep_callback"] = timestep
    return New(module="diffusers", name=CONFIGS[cache.type], arguments=arguments)


class StepCache:
    """One cache on the denoisers of one model."""

    def __init__(self, cache: Cache, modules: Mapping[str, Any]) -> None:
        self._cache = cache
        self._modules = modules

    def start(self, *, steps: int, pipe: Callable[[], Any]) -> None:
        """Switch it on for a row. pipe: returns the row's own pipeline while it runs."""

        def timestep() -> Any:
            now = getattr(pipe(), "current_timestep", None)
            if now is None:
                raise RenderError(
                    f"the cache {self._cache.type} asks the row's pipeline for its timestep, "
                    "but the recipe runs another one",
                    "use another cache, or the recipe generate",
                )
            return now

        for module in self._modules.values():
            module.enable_cache(cache_config(self._cache, steps=steps, timestep=timestep).make())

    def stop(self) -> None:
        for module in self._modules.values():
            if module.is_cache_enabled:
                module.disable_cache()


def check_cache(cache: Cache, denoisers: Mapping[str, Any], *, pipeline_class: type) -> None:
    """Raise ModelError for a cache that the model does not take, or that would do nothing.

    denoisers: may be without weights.
    """
    class_name = pipeline_class.__name__
    if cache.type in TIMED and not hasattr(pipeline_class, "current_timestep"):
        raise ModelError(f"cache {cache.type}: {class_name} does not say its timestep", "use another cache")
    if cache.type == "faster" and not (cache.is_guidance_distilled or family_of(class_name).joins_prompts):
        raise ModelError(
            f"cache faster: {class_name} does not run both prompts in one forward, as it needs",
            "use another cache, or set `is_guidance_distilled: true`, which skips attention only",
        )
    for module in denoisers.values():
        name = type(module).__name__
        if not hasattr(module, "enable_cache"):
            raise ModelError(f"cache: {name} does not take the caches of diffusers", "leave it out")
        try:
            module.enable_cache(cache_config(cache, steps=1).make())
        except (ValueError, KeyError, IndexError, re.error) as error:  # of blocks, or of a bad pattern
            raise ModelError(f"cache {cache.type} does not fit {name}: {error}", "use another") from error
        num_hooked = sum(bool(hooks_of(part)) for part in module.modules() if part is not module)
        is_blind = any(
            getattr(hook, "raw_vision_callback", module) is None for hook in hooks_of(module).values()
        )
        module.disable_cache()
        if is_blind:  # SeaCache finds the latents among the arguments of networks that it knows
            raise ModelError(f"cache {cache.type} does not know {name}'s latents", "use another cache")
        if not num_hooked:
            raise ModelError(
                f"cache {cache.type} finds nothing in {name} by its default names, and would do nothing",
                "name its modules in cache_identifiers, set `use_lite_mode: true`, or use another cache",
            )


def check_called(cache: Cache, called: Iterable[type], *, own: type) -> None:
    """Raise ModelError for a cache that a pipeline which the recipe calls gives no place to work.

    called: those pipelines. own: the model's. Reads their code: diffusers has no other word on it (0.42).
    """
    for pipeline_class in called:
        needed = _NEEDED.get(cache.type, _NAMES_ROWS)
        is_named = needed is None or needed in inspect.getsource(pipeline_class.__call__)
        has_place = pipeline_class is own if cache.type in TIMED else is_named
        if not has_place:
            raise ModelError(
                f"cache {cache.type} does not work in {pipeline_class.__name__}, which the recipe calls",
                "use `cache: {type: mag, ...}`, another recipe, or no cache",
            )


def hooks_of(module: Any) -> Mapping[str, Any]:
    """Return diffusers' hooks on one module; it has no public name for them (0.42)."""
    registry = getattr(module, "_diffusers_hook", None)
    return registry.hooks if registry else {}
