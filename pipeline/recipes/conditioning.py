"""Recipes that call a pipeline once, on an image or a video that the row gives."""

from __future__ import annotations

from typing import Any, Literal

from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.model.families.family import SiblingTask
from framefleet.pipeline.model.specs.geometry import FRAME_PARAMETERS
from framefleet.pipeline.model.specs.spec import Configs
from framefleet.pipeline.recipes.siblings import (
    as_sibling,
    call_parameters,
    configs_of,
    sibling_class,
)
from framefleet.pipeline.request import Request

Medium = Literal["image", "video"]
TASKS: dict[Medium, SiblingTask] = {"image": "image_to_video", "video": "video_to_video"}


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
