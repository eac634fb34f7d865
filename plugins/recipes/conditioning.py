"""Recipes that render on an image or a video: the row's own, an image model's, or the row at a smaller size.

`refine` renders small, upsamples, and renders over it at the next size, and so on to the full one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from PIL import Image

from framefleet.api.clips import Request
from framefleet.api.errors import Refused, RenderError
from framefleet.api.models import FRAME_PARAMETERS, Model
from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.model.families.family import SiblingTask
from framefleet.pipeline.model.families.registry import family_of
from framefleet.pipeline.model.specs.model_index import Configs
from framefleet.pipeline.model.specs.pipeline_call import source_facts
from framefleet.pipeline.model.specs.spec import size_multiple
from framefleet.pipeline.outputs.frames.frames import to_frames
from framefleet.pipeline.outputs.frames.result import has_sound
from framefleet.pipeline.recipes.second_model import call_parameters
from framefleet.pipeline.rows.tables.limits import check_strength
from framefleet.plugins.recipes.siblings import (
    SIBLINGS,
    accepted,
    arguments_for,
    as_sibling,
    configs_of,
    sibling_class,
)

Medium = Literal["image", "video"]
TASKS: dict[Medium, SiblingTask] = {"image": "image_to_video", "video": "video_to_video"}
SIDE = 768  # image models make poor pictures of much fewer pixels than 768 x 768


def image_to_video(pipe: Any, request: Request) -> Any:
    """Render a clip that starts with `request.arguments["image"]`, a PIL image."""
    return _call(pipe, request, "image", request.arguments["image"])


def video_to_video(pipe: Any, request: Request, *, num_frames: int | None = None) -> Any:
    """Render over `request.arguments["video"]`, a list of PIL images, as many as the model renders.

    num_frames: takes only this many, from the first on. A model whose clip only begins or ends with frames of
    the video, as Open-Sora's does, gets all of it, and renders this many.
    """
    video = request.arguments["video"]
    class_name = conditioned_class("video", type(pipe).__name__, configs_of(pipe))
    if "num_frames" in call_parameters(class_name):
        return _call(pipe, request, "video", video, **({"num_frames": num_frames} if num_frames else {}))
    if num_frames is not None and num_frames > len(video):
        raise RecipeError(f"num_frames is {num_frames}, but the video has {len(video)}", "ask for fewer")
    return _call(pipe, request, "video", video[:num_frames])


def conditioned_class(medium: Medium, class_name: str, configs: Configs) -> str:
    """Return the class that starts from a medium: the model's own, or a sibling; or raise RecipeError."""
    return class_name if takes(class_name, medium) else sibling_class(class_name, TASKS[medium], configs)


def takes(class_name: str, medium: Medium) -> bool:
    """Whether a video pipeline's own call takes the medium."""
    parameters = call_parameters(class_name)
    is_video = medium == "video" or any(name in parameters for name in FRAME_PARAMETERS)
    return is_video and medium in parameters


def _call(pipe: Any, request: Request, medium: Medium, value: Any, **more: Any) -> Any:
    able = as_sibling(pipe, conditioned_class(medium, type(pipe).__name__, configs_of(pipe)))
    arguments = {**request.arguments, medium: value, **more}
    return able(**arguments, generator=request.generator(), output_type="np")


def text_to_image_to_video(
    pipe: Any,
    request: Request,
    *,
    image_model: Model | None = None,
    image_height: int | None = None,
    image_width: int | None = None,
    image_steps: int | None = None,
    image_guidance: float | None = None,
) -> Any:
    """Render an image of the prompt with `image_model`, then a clip that starts with it.

    image_model: one that makes images from text, on the device of `pipe`; a row gives its declared name.
    image_height, image_width: by default the clip's, enlarged to about 768 x 768 pixels if they are fewer.
    image_steps, image_guidance: of the image; by default those of the image model's preset. One
    generator draws the noise of both.
    """
    able = as_sibling(pipe, conditioned_class("image", type(pipe).__name__, configs_of(pipe)))
    assert image_model is not None  # it is needed: no row is rendered without
    generator, own = request.generator(), request.arguments
    height, width = image_size(own["height"], own["width"], multiple=image_model.spec.size_multiple)
    arguments = arguments_for(
        image_model,
        request,
        height=image_height or height,
        width=image_width or width,
        num_inference_steps=image_steps,
        guidance_scale=image_guidance,
    )
    image = image_model.pipe(**arguments, generator=generator, output_type="pil").images[0]
    return able(**{**own, "image": image}, generator=generator, output_type="np")


def image_size(height: int, width: int, *, multiple: int) -> tuple[int, int]:
    """Return (height, width) of about the clip's shape, with at least about 768 x 768 pixels."""
    scale = max(1.0, SIDE / math.sqrt(height * width))
    sides = (max(1, round(side * scale / multiple)) * multiple for side in (height, width))
    return next(sides), next(sides)


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
        # Larger by Lanczos, as diffusers resizes its inputs too.
        shape, method = (size["width"], size["height"]), Image.Resampling.LANCZOS
        images = [Image.fromarray(frame).resize(shape, method) for frame in to_frames(output)]
        inputs = {**size, "video": images, "image": images[0], "strength": strength}
        inputs = accepted(larger, {**arguments, **inputs})
        output = larger(**inputs, generator=generator, output_type="np")
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
    if not 1 <= own["levels"] <= _MAX_LEVELS:
        yield "levels", Refused(reason=f"it must be from 1 to {_MAX_LEVELS}", fix="use 1 or 2")
    yield from check_strength(own["strength"], arguments)


def check_refinable(class_name: str, configs: Configs) -> str:
    """Return the class itself. Raises RecipeError where there is no second pipeline for it."""
    refining_class(class_name, configs)
    return class_name
