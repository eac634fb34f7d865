"""The recipe `extend`: a long clip from segments, each going on from the last where the model can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.model.specs.model_index import Configs
from framefleet.pipeline.model.specs.refusal import Refused
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.frames.pixels import Pixels
from framefleet.pipeline.outputs.frames.result import Rendered
from framefleet.pipeline.recipes.conditioning import takes
from framefleet.pipeline.recipes.refine import check_strength
from framefleet.pipeline.recipes.segments import FilmSound, Segment, check_duration, num_frames_of, to_segment
from framefleet.pipeline.recipes.siblings import (
    accepted,
    as_sibling,
    call_parameters,
    configs_of,
    find_sibling,
    fitted_arguments,
)
from framefleet.pipeline.request import Request

MAX_OVERLAP = 8  # half a second at 16 fps, unless the row says otherwise


def extend(
    pipe: Any, request: Request, *, duration_s: float, overlap: int | None = None, strength: float = 0.8
) -> Rendered:
    """Render `duration_s` seconds, in segments of the row's `num_frames`; the last one is cut to length.

    A model that takes an image starts each segment with the last frame of the one before. One that takes a
    video renders over the last `overlap` frames and then the last one held, with `strength`; another starts
    anew. These two are cross-faded over `overlap` frames; None is 8, or half a segment if that is less. Sound
    is joined as the frames are. One generator draws all noise.
    """
    num_frames = max(num_frames_of(request, duration_s), 1)
    generator = request.generator()

    def rendered(able: Any, arguments: Mapping[str, Any]) -> Segment:
        return to_segment(able(**arguments, generator=generator, output_type="np"), able)

    segment = rendered(pipe, request.arguments)
    size, fps = len(segment.frames), request.fps or 1.0  # the rate is there: num_frames_of asks for it
    overlap = min(MAX_OVERLAP, size // 2) if overlap is None else overlap
    follow, shared = _follower(pipe, request.arguments, rendered, fps=fps, overlap=overlap, strength=strength)
    if size <= max(shared, 1):
        raise RecipeError(f"segments of {size} frames cannot share {shared}", "raise num_frames")
    film = np.empty((num_frames, *segment.frames.shape[1:]), dtype=np.uint8)
    sound = FilmSound(segment.audio, num_frames=num_frames, fps=fps)
    length = 0
    while True:
        over = shared if length else 0
        sound.join(segment, length, overlap=over)
        length = join_segment(film, length, segment.frames, overlap=over)
        if length == num_frames:
            return Rendered(pixels=Pixels.of(film), audio=sound.audio())
        segment = follow(film[:length], size)


def join_segment(film: Frames, length: int, segment: Frames, *, overlap: int) -> int:
    """Put a segment behind the first `length` frames of `film` and return how many there are now.

    The last `overlap` of them fade into the first of the segment, linearly. What has no room is cut off.
    """
    for i in range(overlap):
        weight, at = (i + 1) / (overlap + 1), length - overlap + i
        film[at] = (film[at] * (1 - weight) + segment[i] * weight).round()
    rest = segment[overlap : overlap + len(film) - length]
    film[length : length + len(rest)] = rest
    return length + len(rest)


def check_extendable(class_name: str, configs: Configs) -> str:
    """Return the class itself. Raises RecipeError when it renders no video."""
    parameters = call_parameters(class_name)
    if not any(name in parameters for name in (*FRAME_PARAMETERS, "video")):
        raise RecipeError(f"{class_name} renders images, which cannot be extended", "use a video model")
    return class_name


def following_class(class_name: str, configs: Configs) -> str | None:
    """Return the pipeline that goes on from frames, from a picture if it can; None where segments are new."""
    if takes(class_name, "image"):
        return class_name
    return find_sibling(class_name, "image_to_video", configs) or find_sibling(
        class_name, "video_to_video", configs, redraws=True
    )


def check_extend(own: Mapping[str, Any], arguments: Mapping[str, Any]) -> Iterator[tuple[str, Refused]]:
    """Yield what of a row cannot be rendered, as the argument and why."""
    yield from check_duration(own["duration_s"])
    overlap = own["overlap"] or 0
    if overlap < 0:
        yield "overlap", Refused(reason="it must be 0 or more", fix="use 8, say")
    for name in set(FRAME_PARAMETERS) & set(arguments):
        if arguments[name] == 1:
            fix = "use what the model is made for"
            yield name, Refused(reason="a segment needs 2 frames or more", fix=fix)
        elif overlap >= arguments[name]:
            reason = f"a segment has only {arguments[name]} frames"
            fix = f"use {arguments[name] // 4}, say, or a larger {name}"
            yield "overlap", Refused(reason=reason, fix=fix)
    yield from check_strength(own["strength"], arguments)


Follow = Callable[[Frames, int], Segment]  # the film so far and the length of a segment, to the next segment


def _follower(
    pipe: Any,
    arguments: Mapping[str, Any],
    rendered: Callable[[Any, Mapping[str, Any]], Segment],
    *,
    fps: float,
    overlap: int,
    strength: float,
) -> tuple[Follow, int]:
    """Return how the model goes on, and how many frames of a segment lie over the last of the film."""
    class_name, configs = type(pipe).__name__, configs_of(pipe)
    following = following_class(class_name, configs)
    if following is None:
        return lambda film, num_frames: rendered(pipe, arguments), overlap
    able = as_sibling(pipe, following)
    if takes(following, "image"):

        def follow(film: Frames, num_frames: int) -> Segment:
            given = accepted(able, {**arguments, "image": Image.fromarray(film[-1])})
            return rendered(able, fitted_arguments(able, given)).from_second(fps)  # the first is the image

        return follow, 0

    def follow_over(film: Frames, num_frames: int) -> Segment:
        held = [film[-1]] * (num_frames - overlap)
        video = [Image.fromarray(frame) for frame in [*film[len(film) - overlap :], *held]]
        return rendered(able, accepted(able, {**arguments, "video": video, "strength": strength}))

    return follow_over, overlap
