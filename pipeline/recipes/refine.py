"""The recipe `refine`: render small, upsample, render over it at the next size, and so on to the full one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.model.families.family import SiblingTask
from framefleet.pipeline.model.families.registry import family_of
from framefleet.pipeline.model.specs.model_index import Configs
from framefleet.pipeline.model.specs.refusal import Refused
from framefleet.pipeline.model.specs.source_facts import source_facts
from framefleet.pipeline.model.specs.spec import size_multiple
from framefleet.pipeline.outputs.frames.frames import Frames, to_frames
from framefleet.pipeline.outputs.frames.result import has_sound
from framefleet.pipeline.recipes.siblings import SIBLINGS, accepted, as_sibling, configs_of, sibling_class
from framefleet.pipeline.request import Request

_MAX_LEVELS = 4  # a 16th of 1280 pixels is 80


def refine(pipe: Any, request: Request, *, levels: int = 1, strength: float = 0.6) -> Any:
    """Render at 1 / 2**levels of the size, then double it `levels` times.

    strength: how much of the noise, and of the steps, each larger rendering starts with. One generator draws
    the noise of all. The arguments that the second pipeline does not have count for the first only. What is
    returned is the last rendering's, its sound too.
    """
    arguments, generator = request.arguments, request.generator()
    class_name, configs = type(pipe).__name__, configs_of(pipe)
    larger = as_sibling(pipe, refining_class(class_name, configs))
    multiple = size_multiple(source_facts(type(pipe), pipe), configs, family_of(class_name))
    sizes = sizes_of(arguments["height"], arguments["width"], levels=levels, multiple=multiple)
    output = pipe(**{**arguments, **sizes[0]}, generator=generator, output_type="np")
    had_sound = has_sound(output)
    for size in sizes[1:]:
        inputs = _as_input(to_frames(output), **size)
        given = accepted(larger, {**arguments, **size, **inputs, "strength": strength})
        output = larger(**given, generator=generator, output_type="np")
    if had_sound and not has_sound(output):
        raise RenderError(
            f"{type(pipe).__name__} makes sound, but {type(larger).__name__}, the second pipeline, does not",
            "use the recipe generate",
        )
    return output


def sizes_of(height: int, width: int, *, levels: int, multiple: int) -> list[dict[str, int]]:
    """Return the sizes from the smallest to the full one, the smaller ones as multiples of `multiple`."""

    def part(side: int, level: int) -> int:
        return max(round(side / 2**level / multiple), 1) * multiple if level else side

    return [{"height": part(height, k), "width": part(width, k)} for k in range(levels, -1, -1)]


def refining_class(class_name: str, configs: Configs) -> str:
    """Return the class that renders over a clip or image. Raises RecipeError when there is none."""
    is_image = any(class_name in (s.source, s.target) for s in SIBLINGS if s.task == "image_to_image")
    task: SiblingTask = "image_to_image" if is_image else "video_to_video"
    return sibling_class(class_name, task, configs, redraws=True)


def check_refine(own: Mapping[str, Any], arguments: Mapping[str, Any]) -> Iterator[tuple[str, Refused]]:
    """Yield what of a row cannot be rendered, as the argument and why."""
    if not 1 <= own["levels"] <= _MAX_LEVELS:
        yield "levels", Refused(reason=f"it must be from 1 to {_MAX_LEVELS}", fix="use 1 or 2")
    yield from check_strength(own["strength"], arguments)


def check_strength(strength: float, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Refused]]:
    """Yield a strength that leaves no step: diffusers runs the last int(steps * strength) of them."""
    steps = arguments.get("num_inference_steps")
    if not 0 < strength <= 1:
        yield "strength", Refused(reason="it must be above 0 and at most 1", fix="use 0.6, say")
    elif steps is not None and int(steps * strength) < 1:
        least = math.ceil(100 / steps) / 100
        reason = f"of {steps} steps that leaves none"
        yield "strength", Refused(reason=reason, fix=f"use {least} or more, or more steps")


def _as_input(frames: Frames, *, height: int, width: int) -> dict[str, Any]:
    """Return the frames in the larger size, as PIL images; diffusers resizes its inputs so too."""
    images = [Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS) for frame in frames]
    return {"video": images, "image": images[0]}
