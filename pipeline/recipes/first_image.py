"""The recipe `text_to_image_to_video`: an image model makes the first frame, the video model goes on."""

from __future__ import annotations

import math
from typing import Any

from framefleet.pipeline.model.model import Model
from framefleet.pipeline.recipes.conditioning import conditioned_class
from framefleet.pipeline.recipes.second_model import arguments_for
from framefleet.pipeline.recipes.siblings import as_sibling, configs_of
from framefleet.pipeline.request import Request

SIDE = 768  # image models make poor pictures of much fewer pixels than 768 x 768


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
