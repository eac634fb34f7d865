"""From configs and arguments to the values that a pipeline or its scheduler accepts but cannot render."""

from __future__ import annotations

import ast
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from framefleet.pipeline.errors import Problem, Refused, count_text
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.families.registry import WITH_LAST_IMAGE
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.check import too_large
from framefleet.pipeline.model.specs.constructor import method
from framefleet.pipeline.model.specs.model_index import NETS, is_modular
from framefleet.pipeline.model.specs.pipeline_call import pipeline_named
from framefleet.pipeline.model.specs.schedulers import SchedulerChoice
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS, OF_EACH, controlling
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.file_step import LeastFrames
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.recipes.second_model import is_first_only

_Problems = Iterator[tuple[str, Refused]]

# Transformers with `image_dim` always take the last 512 tokens for text and those before for the picture: in
# diffusers 0.42 "the context length of the text encoder, hardcoded for now".
TEXT_BESIDE_PICTURE = 512

# Models whose `pos_embed_max_size` bounds a side, or, for AuraFlow, all tokens of a square. CogView4's bounds
# nothing.
_SIDE_POSITIONS: dict[str, Callable[[int], int]] = {
    "AuraFlowTransformer2DModel": math.isqrt,
    "CogView3PlusTransformer2DModel": int,
    "SD3Transformer2DModel": int,
}
STEP_LISTS = ("sigmas", "timesteps")
_MAX_MESSAGE = 200  # characters of a scheduler's error
_CACHED = 1024


def limits(spec: PipelineSpec, arguments: Mapping[str, Any]) -> _Problems:
    """Yield arguments that are fine separately, and why this model cannot render them together.

    diffusers would fail on them after the model is loaded, or silently render something else.
    """
    transformer = spec.configs.get("transformer", {})
    yield from _sizes(arguments)
    if transformer.get("use_learned_positional_embeddings"):
        # If the position of each patch was learned, other sizes have none.
        for name, native in (("height", spec.default_height), ("width", spec.default_width)):
            if native and arguments.get(name, native) != native:
                reason = f"the model only learned {spec.default_height} x {spec.default_width} pixels"
                yield name, Refused(reason=reason, fix=f"use {native}")
    yield from _most_positions(spec, arguments)
    if transformer.get("image_dim"):
        length = arguments.get("max_sequence_length", TEXT_BESIDE_PICTURE)
        if length != TEXT_BESIDE_PICTURE:
            reason = f"with a picture, the model counts {TEXT_BESIDE_PICTURE} tokens as text"
            yield "max_sequence_length", Refused(reason=reason, fix=f"use {TEXT_BESIDE_PICTURE}")
    yield from _longest_text(spec, arguments)
    if "guidance_scale_2" in arguments and spec.configs["index"].get("boundary_ratio") is None:
        reason = "the model has only one transformer: its boundary_ratio is not set"
        yield "guidance_scale_2", Refused(reason=reason, fix="leave it out")
    if arguments.get("last_image") and is_first_only(spec.configs):
        fix = f"leave it out, or use {WITH_LAST_IMAGE}"
        yield "last_image", Refused(reason="the model starts from a first image only", fix=fix)
    if arguments.get("fps") is not None and spec.configs.get("unet", {}).get("default_fps", 0) is None:
        yield "fps", Refused(reason="this model takes no frame rate", fix="leave it out")
    if count := spec.configs.get("controlnet", {}).get(NETS):
        yield from _of_each_controlnet(count, spec, arguments)
    if spec.family.is_guarded:
        yield from _one_start(spec, arguments)
    if "max_guidance_scale" in spec.parameters:
        # Pipelines with two scales check first only the maximum for whether there is guidance, later both.
        scales = {**spec.defaults(), **arguments}
        low, high = scales["min_guidance_scale"], scales["max_guidance_scale"]
        if high <= 1 < low:
            reason = f"max_guidance_scale is {high:g}, which switches guidance off"
            yield "min_guidance_scale", Refused(reason=reason, fix="use 1 or less, or a larger maximum")
    if "strength" in (arguments if is_modular(spec.class_name) else spec.parameters):
        yield from check_strength({**spec.defaults(), **arguments}["strength"], arguments)


def check_strength(strength: float, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Refused]]:
    """Yield a strength that leaves no step: diffusers runs the last int(steps * strength) steps."""
    steps = arguments.get("num_inference_steps")
    if not 0 < strength <= 1:
        yield "strength", Refused(reason="it must be above 0 and at most 1", fix="use e.g. 0.6")
    elif steps is not None and int(steps * strength) < 1:
        least = math.ceil(100 / steps) / 100
        reason = f"with {count_text(steps, 'step')}, that leaves none"
        yield "strength", Refused(reason=reason, fix=f"use {least} or more, or more steps")


def _sizes(arguments: Mapping[str, Any]) -> _Problems:
    """Sizes that are too large in total, of the row's clip and of what a second model makes."""
    frames = [arguments.get(name, 1) for name in FRAME_PARAMETERS]
    counts = {"": max(frames), "image_": 1, "keyframe_": arguments.get("keyframe_frames") or 1}
    for prefix, num_frames in counts.items():
        height, width = (arguments.get(f"{prefix}{side}") or 1 for side in ("height", "width"))
        if reason := too_large(height, width, num_frames):
            yield f"{prefix}height", Refused(reason=reason, fix="use a smaller size, or fewer frames")


def _most_positions(spec: PipelineSpec, arguments: Mapping[str, Any]) -> _Problems:
    """Sides that are longer than a model's table of positions."""
    transformer = spec.configs.get("transformer", {})
    along_side = _SIDE_POSITIONS.get(transformer.get("_class_name", ""))
    count = transformer.get("pos_embed_max_size")
    for name in ("height", "width"):
        positions = along_side(count) if along_side and count else 0  # along a side, one for each token
        if transformer.get("use_rotary_positional_embeddings") and transformer.get("patch_size_t"):
            positions = int(transformer.get(f"sample_{name}") or 0) // 2  # CogVideoX 1.5 cuts its table
        longest = positions * spec.size_multiple
        if longest and (arguments.get(name) or 0) > longest:
            reason = f"the model has positions for {longest} pixels"
            yield name, Refused(reason=reason, fix=f"use {longest} or less")


def _longest_text(spec: PipelineSpec, arguments: Mapping[str, Any]) -> _Problems:
    """Text lengths that pipelines refuse when they are called, or for which a model has no positions."""
    length = arguments.get("max_sequence_length")
    if length is None:
        return
    transformer = spec.configs.get("transformer", {})
    is_rotary = transformer.get("use_rotary_positional_embeddings")
    is_fixed = transformer.get("use_learned_positional_embeddings") or not is_rotary
    only = transformer.get("max_text_seq_length", spec.family.text_positions)
    if spec.family.text_positions is not None and is_fixed and only:
        if length != only:
            reason = f"the model has positions for {count_text(only, 'token')} of text"
            yield "max_sequence_length", Refused(reason=reason, fix=f"use {only}")
    elif length > (longest := spec.max_text or length):
        reason = f"the pipeline takes at most {count_text(longest, 'token')}"
        yield "max_sequence_length", Refused(reason=reason, fix=f"use {longest} or less")


def _of_each_controlnet(count: int, spec: PipelineSpec, arguments: Mapping[str, Any]) -> _Problems:
    """Several ControlNets take one image each, and either one number for all or one number each."""
    image = controlling(spec.parameters)
    for name in (image, *OF_EACH):
        value = arguments.get(name)
        is_single = value is not None and not isinstance(value, list)
        if isinstance(value, list) and len(value) != count:
            reason = f"the model has {count} ControlNets, and this lists {len(value)}"
            yield name, Refused(reason=reason, fix=f"list {count}, in the order of the ControlNets")
        elif is_single and name == image:
            reason = f"the model has {count} ControlNets, and each takes an image"
            yield name, Refused(reason=reason, fix=f"use a list of {count} images")


def frames_problem(
    least: LeastFrames, kind: str, arguments: Mapping[str, Any], too_fast: Refused | None
) -> Problem | None:
    """Return why a file step cannot process a row's clip. kind: what its model renders."""
    lengths = [1] if kind == "image" else [arguments.get(name) for name in FRAME_PARAMETERS]
    sides = [arguments.get(name) for name in ("height", "width")]
    if 1 in lengths:
        reason = "the row renders one frame"
    elif small := [side for side in sides if isinstance(side, int) and side < least.side]:
        reason = f"the row renders frames with a side of {small[0]} pixels"
    else:
        return Problem(least.key, least.value, too_fast) if too_fast else None
    return Problem(least.key, least.value, Refused(reason=reason, fix=least.fix))


def _one_start(spec: PipelineSpec, arguments: Mapping[str, Any]) -> _Problems:
    """Cosmos continues an image or a video; with both, some of its classes read only the image."""
    starts = [name for name in ("image", "video") if arguments.get(name)]
    if len(starts) > 1:
        yield "image", Refused(reason="the row also has a video", fix="leave one of them out")
    elif not starts and "VideoToWorld" in spec.class_name:
        yield "image", Refused(reason="the model starts from an image or a video", fix="set image or video")


def late_problems(
    spec: PipelineSpec,
    recipe: Recipe,
    arguments: Mapping[str, Any],
    *,
    fps: float | None,
    scheduler: SchedulerChoice,
) -> list[tuple[str, Refused]]:
    """Return why recipe, model or scheduler cannot render values that are fine separately."""
    problems = [*recipe.problems(arguments), *limits(spec, arguments)]
    if fps is not None and recipe.check_rate and not problems:
        problems += recipe.check_rate(arguments, fps)
    return [*problems, *check_step_lists(arguments, scheduler, spec)]


def listed_steps(arguments: Mapping[str, Any]) -> int | None:
    """Return the number of steps that a row lists, which replaces `num_inference_steps`; None without."""
    return next((len(arguments[name]) for name in STEP_LISTS if isinstance(arguments.get(name), list)), None)


def check_step_lists(
    arguments: Mapping[str, Any], choice: SchedulerChoice, spec: PipelineSpec
) -> Iterator[tuple[str, Refused]]:
    """Yield why a row cannot be rendered with the steps that it lists."""
    names = [name for name in STEP_LISTS if isinstance(arguments.get(name), list)]
    if len(names) > 1:
        reason = "a row lists its steps once, and this one has `sigmas` too"
        yield "timesteps", Refused(reason=reason, fix="leave one of them out")
        return
    for name in names:
        count, steps = len(arguments[name]), arguments.get("num_inference_steps")
        if steps not in (None, count):
            reason = f"`{name}` lists {count_text(count, 'step')}"
            yield "num_inference_steps", Refused(reason=reason, fix=f"leave it out, or use {count}")
        if not choice.class_name:
            continue  # the pipeline makes its own steps, and checks them itself
        config = {**spec.scheduler_config, **choice.overrides}
        if name == "sigmas" and config.get("use_flow_sigmas") and _leaves_out(spec.class_name):
            refusal: str | None = f"the pipeline ignores it for {choice.class_name}, which makes its own"
        else:
            configs = map(canonical_json, (spec.scheduler_config, choice.overrides))
            classes = (spec.scheduler_class, choice.class_name)
            refusal = _scheduler_error(*classes, *configs, name, tuple(arguments[name]))
        if refusal:
            yield name, Refused(reason=refusal, fix="correct it, leave it out, or use another scheduler")


@lru_cache(_CACHED)
def _leaves_out(class_name: str) -> bool:
    """Return whether a pipeline drops sigmas if `use_flow_sigmas` is set, as Flux and others do."""
    call = method(pipeline_named(class_name), "__call__")
    return call is not None and "use_flow_sigmas" in ast.unparse(call)


@lru_cache(_CACHED)  # a table lists few schedules, in many rows
def _scheduler_error(
    own_class: str, class_name: str, config: str, overrides: str, name: str, steps: tuple[float, ...]
) -> str | None:
    """Return why a scheduler refuses these steps, or None. config, overrides: JSON."""
    own = class_named(own_class).from_config(json.loads(config))
    scheduler = class_named(class_name).from_config(own.config, **json.loads(overrides))
    parameters = inspect.signature(scheduler.set_timesteps).parameters
    if name not in parameters:
        return f"{class_name} takes no `{name}`"
    mu = {"mu": 1.0} if "mu" in parameters and scheduler.config.get("use_dynamic_shifting") else {}
    try:
        scheduler.set_timesteps(**{name: list(steps)}, device="cpu", **mu)
    except Exception as error:  # a scheduler may raise anything; some only fail while they compute
        return f"{class_name} does not take it: {str(error)[:_MAX_MESSAGE]}"
    return None
