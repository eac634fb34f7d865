"""The recipe `keyframes`: a long clip from key frames, which are rendered first, and clips between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from framefleet.api.clips import Frames, Request
from framefleet.api.errors import Refused
from framefleet.api.models import FRAME_PARAMETERS, Model
from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.model.families.registry import FROM_IMAGE_TO_IMAGE
from framefleet.pipeline.model.specs.check import coerce
from framefleet.pipeline.model.specs.model_index import Configs
from framefleet.pipeline.outputs.frames.frames import to_frames
from framefleet.pipeline.recipes import second_model
from framefleet.plugins.recipes import siblings
from framefleet.plugins.recipes.extend import (
    ENDS,
    MAX_FILM_FRAMES,
    check_duration,
    num_frames_of,
    silent_frames,
)

if TYPE_CHECKING:
    import torch

Interpolate = Callable[[Frames, Frames], Frames]  # two frames to a clip that leads from one to the other


def keyframes(
    pipe: Any,
    request: Request,
    *,
    duration_s: float,
    num_keyframes: int = 4,
    keyframe_times: str | None = None,
) -> Frames:
    """Render the row once, coarsely; take key frames from that clip; render from each to the next.

    The first clip stands for all of `duration_s`. num_keyframes: at equal distances, both ends among them.
    keyframe_times: seconds, e.g. "0, 0.5, 2", instead of these; both ends are always key frames. If two are
    further apart than a clip is long, its middle becomes a key frame. One generator draws all noise.
    """
    generator = request.generator()
    coarse = to_frames(pipe(**request.arguments, generator=generator, output_type="np"))
    return refined(coarse, pipe, request, generator, duration_s, num_keyframes, keyframe_times)


def text_to_keyframes_to_video(
    pipe: Any,
    request: Request,
    *,
    duration_s: float,
    keyframe_model: Model | None = None,
    num_keyframes: int = 4,
    keyframe_times: str | None = None,
    keyframe_height: int | None = None,
    keyframe_width: int | None = None,
    keyframe_frames: int | None = None,
    keyframe_steps: int | None = None,
    keyframe_guidance: float | None = None,
) -> Frames:
    """Render the prompt with `keyframe_model`; take key frames from that clip; render from each to the next.

    keyframe_model: one that makes videos from text, on the device of `pipe`; a row gives its declared name.
    keyframe_height, ... keyframe_guidance: of that first clip; by default those of the second model's preset.
    The rest as in `keyframes`.
    """
    assert keyframe_model is not None  # it is needed: no row is rendered without
    generator = request.generator()
    arguments = siblings.arguments_for(
        keyframe_model,
        request,
        height=keyframe_height,
        width=keyframe_width,
        num_inference_steps=keyframe_steps,
        guidance_scale=keyframe_guidance,
        **dict.fromkeys(FRAME_PARAMETERS, keyframe_frames),
    )
    coarse = to_frames(keyframe_model.pipe(**arguments, generator=generator, output_type="np"))
    return refined(coarse, pipe, request, generator, duration_s, num_keyframes, keyframe_times)


def refined(
    coarse: Frames,
    pipe: Any,
    request: Request,
    generator: torch.Generator,
    duration_s: float,
    num_keyframes: int,
    keyframe_times: str | None,
) -> Frames:
    """Return the film whose key frames are those of `coarse`, which stands for all of it."""
    num_frames = max(num_frames_of(request, duration_s), 2)
    if keyframe_times is None:
        shares = [i / (num_keyframes - 1) for i in range(num_keyframes)]
    else:
        shares = [0.0, *(time / duration_s for time in _parsed(keyframe_times) or ()), 1.0]

    def interpolate(first: Frames, last: Frames) -> Frames:
        ends = {"image": Image.fromarray(first), "last_image": Image.fromarray(last)}
        rest = {name: value for name, value in request.arguments.items() if name not in ENDS}
        arguments = second_model.fitted_arguments(pipe, {**rest, **ends})
        return silent_frames(pipe(**arguments, generator=generator, output_type="np"), pipe)

    at = sorted({round(share * (num_frames - 1)) for share in shares})  # frames of the film
    keys = [coarse[round(i / (num_frames - 1) * (len(coarse) - 1))] for i in at]
    pieces = [between(keys[i], keys[i + 1], at[i + 1] - at[i], interpolate)[:-1] for i in range(len(at) - 1)]
    return np.concatenate([*pieces, keys[-1][None]])


def between(first: Frames, last: Frames, steps: int, interpolate: Interpolate) -> Frames:
    """Return `steps + 1` frames that lead from `first` to `last`.

    Those of one interpolation that lie nearest; of two or more where one has too few.
    """
    if steps == 1:
        return np.stack([first, last])
    frames = interpolate(first, last)
    reach = len(frames) - 1
    if steps <= reach:
        inner = [frames[round(i * reach / steps)] for i in range(1, steps)]
        return np.stack([first, *inner, last])
    half = steps // 2
    middle = frames[round(half * reach / steps)]
    head = between(first, middle, half, interpolate)
    return np.concatenate([head[:-1], between(middle, last, steps - half, interpolate)])


def check_keyframes(own: Mapping[str, Any], arguments: Mapping[str, Any]) -> Iterator[tuple[str, Refused]]:
    duration = own["duration_s"]
    yield from check_duration(duration)
    if own["num_keyframes"] < 2:
        yield "num_keyframes", Refused(reason="both ends are key frames", fix="use 2 or more")
    for name in set(FRAME_PARAMETERS) & set(arguments):
        if arguments[name] < 3:
            reason = "a clip without a frame between its ends leads nowhere"
            yield name, Refused(reason=reason, fix="use more")
    if own["keyframe_times"] is not None:
        times = _parsed(own["keyframe_times"])
        if times is None or len(times) > MAX_FILM_FRAMES:
            yield "keyframe_times", Refused(reason="it must be seconds", fix="write them as 0, 0.5, 2")
        elif not all(0 <= time <= duration for time in times):
            yield "keyframe_times", Refused(reason=f"the clip lasts {duration:g} s", fix="stay within it")


def keyframe_class(class_name: str, configs: Configs) -> str:
    """Return the class itself. Raises RecipeError when it does not lead from one image to another."""
    parameters = second_model.call_parameters(class_name)
    if not {"image", "last_image"} <= set(parameters) or second_model.is_first_only(configs):
        raise RecipeError(
            f"{class_name} of this model takes no `image` and `last_image`, between which keyframes renders",
            f"use {FROM_IMAGE_TO_IMAGE}",
        )
    return class_name


def _parsed(text: str) -> list[float] | None:
    cells = [coerce(cell.strip(), "float") for cell in text.split(",")]
    times = [float(cell) for cell in cells if not isinstance(cell, Refused)]
    return times if len(times) == len(cells) else None
