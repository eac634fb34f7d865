"""Recipes that call a pipeline on an image or a video: the row's own, or one that an image model makes."""

from __future__ import annotations

import math
from typing import Any, Literal

from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.model.families.family import SiblingTask
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.specs.model_index import Configs
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS
from framefleet.pipeline.recipes.second_model import arguments_for
from framefleet.pipeline.recipes.siblings import as_sibling, call_parameters, configs_of, sibling_class
from framefleet.pipeline.request import Request

Medium = Literal["image", "video"]
TASKS: dict[Medium, SiblingTask] = {"image": "image_to_video", "video": "video_to_video"}
SIDE = 768  # image models make poor pictures of much fewer pixels than 768 x 768


def image_to_video(pipe: Any, request: Request) -> Any:
    """Render a clip that starts with `request.arguments["image"]`, a PIL image."""
    return _call(pipe, request, "image", request.arguments["image"])


def video_to_video(pipe: Any, request: Request, *, num_frames: int | None = None) -> Any:
    """Render over `request.arguments["video"]`, a list of PIL images, as many as the model renders.

    num_frames: takes only this many, from the first on. A model whose clip only begins or ends with frames of
    the video, as Open-Sora's does, is given the whole of it, and renders this many.
    """
    video = request.arguments["video"]
    class_name = conditioned_class("video", type(pipe).__name__, configs_of(pipe))
    if "num_frames" in call_parameters(class_name):
        return _call(pipe, request, "video", video, **({"num_frames": num_frames} if num_frames else {}))
    if num_frames is not None and num_frames > len(video):
        raise RecipeError(f"num_frames is {num_frames}, but the video has {len(video)}", "ask for fewer")
    return _call(pipe, request, "video", video[:num_frames])


def conditioned_class(medium: Medium, class_name: str, configs: Configs) -> str:
    """Return the class that starts from an image, or renders over a video: the model's own, or its sibling.

    Raises RecipeError with the models that can.
    """
    return class_name if takes(class_name, medium) else sibling_class(class_name, TASKS[medium], configs)


def takes(class_name: str, medium: Medium) -> bool:
    """Whether a video pipeline's own call takes the medium."""
    parameters = call_parameters(class_name)
    is_video = medium == "video" or any(name in parameters for name in FRAME_PARAMETERS)
    return is_video and medium in parameters


def _call(pipe: Any, request: Request, medium: Medium, given: Any, **more: Any) -> Any:
    able = as_sibling(pipe, conditioned_class(medium, type(pipe).__name__, configs_of(pipe)))
    arguments = {**request.arguments, medium: given, **more}
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
    image_height, image_width: without them those of the clip, enlarged to about 768 x 768 pixels if they are
    fewer. image_steps, image_guidance: of the image; without them what the image model's preset says. One
    generator draws the noise of both.
    """
    able = as_sibling(pipe, conditioned_class("image", type(pipe).__name__, configs_of(pipe)))
    assert image_model is not None  # it is needed: no row is rendered without
    generator, given = request.generator(), request.arguments
    height, width = image_size(given["height"], given["width"], multiple=image_model.spec.size_multiple)
    arguments = arguments_for(
        image_model,
        request,
        height=image_height or height,
        width=image_width or width,
        num_inference_steps=image_steps,
        guidance_scale=image_guidance,
    )
    image = image_model.pipe(**arguments, generator=generator, output_type="pil").images[0]
    return able(**{**given, "image": image}, generator=generator, output_type="np")


def image_size(height: int, width: int, *, multiple: int) -> tuple[int, int]:
    """Return (height, width) of about the clip's shape, with at least about 768 x 768 pixels."""
    scale = max(1.0, SIDE / math.sqrt(height * width))
    sides = (max(1, round(side * scale / multiple)) * multiple for side in (height, width))
    return next(sides), next(sides)
