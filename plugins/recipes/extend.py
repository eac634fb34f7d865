"""The recipe `extend`: long clips from several calls, with frames and sound in step.

`extend` continues from the last segment if the model can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from framefleet.api.clips import Audio, Frames, Request
from framefleet.api.errors import Refused, RenderError, count_text
from framefleet.api.models import FRAME_PARAMETERS
from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.model.specs.check import too_large
from framefleet.pipeline.model.specs.model_index import Configs
from framefleet.pipeline.outputs.frames.frames import Pixels, to_frames
from framefleet.pipeline.outputs.frames.result import Rendered, to_rendered
from framefleet.pipeline.recipes import second_model
from framefleet.pipeline.rows.tables.limits import check_strength
from framefleet.plugins.recipes import siblings
from framefleet.plugins.recipes.conditioning import takes

MIN_S, MAX_S = 1, 60
MAX_FILM_FRAMES = 60 * 60  # a minute at 60 fps: 4 GB at 480 x 832


def num_frames_of(request: Request, duration_s: float) -> int:
    """Return `round(duration_s * fps)`. Raises RecipeError for a row without a rate, and too many frames."""
    if request.fps is None:
        fix = "set media.fps, or an fps column"
        raise RecipeError(f"{request.recipe} renders seconds, and the row has no fps", fix)
    for _, refused in check_film({**request.arguments, "duration_s": duration_s}, request.fps):
        raise RecipeError(f"duration_s is {duration_s:g}, but {refused.reason}", refused.fix)
    return round(duration_s * request.fps)


def check_duration(duration_s: float) -> Iterator[tuple[str, Refused]]:
    if not MIN_S <= duration_s <= MAX_S:
        reason = f"it must be from {MIN_S} to {MAX_S} seconds"
        yield "duration_s", Refused(reason=reason, fix="split what is longer into rows")


def check_film(arguments: Mapping[str, Any], fps: float) -> Iterator[tuple[str, Refused]]:
    """Yield seconds that are too many frames at this rate, or frames too many at this size."""
    num_frames = round(arguments["duration_s"] * fps)
    height, width = arguments.get("height") or 1, arguments.get("width") or 1
    reason = f"that is {count_text(num_frames, 'frame')} at {fps:g} fps"
    if num_frames > MAX_FILM_FRAMES:
        fix = "lower fps, or split the row"
        yield "duration_s", Refused(reason=f"{reason}, more than {MAX_FILM_FRAMES:,}", fix=fix)
    elif too_many := too_large(height, width, num_frames):
        fix = "use a smaller size, lower fps, or split the row"
        yield "duration_s", Refused(reason=f"{reason}: {too_many}", fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What one call gave. audio: None where the pipeline gives none."""

    frames: Frames
    audio: Audio | None = None

    def from_second(self, fps: float) -> Segment:
        """Return the segment without its first frame, and what is heard with it."""
        if self.audio is None:
            return Segment(frames=self.frames[1:])
        rate = self.audio.sample_rate
        later = Audio(samples=self.audio.samples[:, round(rate / fps) :], sample_rate=rate)
        return Segment(frames=self.frames[1:], audio=later)


def to_segment(output: Any, pipe: Any) -> Segment:
    """Return frames and sound of a call. Raises RenderError for other outputs, which would be lost."""
    rendered = to_rendered(output, pipe)
    if others := [*rendered.extras.arrays, *rendered.extras.values]:
        raise RenderError(
            f"{type(pipe).__name__} returns {', '.join(others)} besides frames, which a clip made of several "
            "calls does not keep",
            "use the recipe generate, or one of your own",
        )
    return Segment(frames=to_frames(rendered), audio=rendered.audio)


def silent_frames(output: Any, pipe: Any) -> Frames:
    """Return the frames of a call. Raises RenderError where there is sound, which the recipe cannot keep."""
    segment = to_segment(output, pipe)
    if segment.audio is not None:
        raise RenderError(
            f"{type(pipe).__name__} makes sound, and this recipe leaves frames out between others",
            "use the recipe extend or generate",
        )
    return segment.frames


class FilmSound:
    """The sound of a film that is joined from segments, at the places of their frames; or none."""

    def __init__(self, first: Audio | None, *, num_frames: int, fps: float) -> None:
        """first: of the first segment, as all must be. num_frames: of the whole film."""
        self._kind = num_channels, self._rate = _kind(first)
        self._per_frame = self._rate / fps
        length = round(num_frames * self._per_frame)
        self._samples: npt.NDArray[np.float32] = np.zeros((num_channels, length), dtype=np.float32)

    def join(self, segment: Segment, length: int, *, overlap: int) -> None:
        """Put a segment's sound where its frames begin, `overlap` before the first `length` of the film.

        It fades in over the overlap, linearly, as what is there fades out. What has no room is cut off.
        """
        if _kind(segment.audio) != self._kind:
            problem = "segments of this row have different sound, or some have none"
            raise RenderError(problem, "use the recipe generate")
        if segment.audio is None:
            return
        at, seen = (round(count * self._per_frame) for count in (length - overlap, length))
        room = self._samples[:, at : at + round(len(segment.frames) * self._per_frame)]
        part = np.zeros_like(room)
        heard = segment.audio.samples[:, : room.shape[1]]
        part[:, : heard.shape[1]] = heard
        weights = np.ones(room.shape[1], dtype=np.float32)
        fade = min(seen - at, len(weights))
        weights[:fade] = (np.arange(fade, dtype=np.float32) + 1) / (fade + 1)
        room[:] = room * (1 - weights) + part * weights

    def audio(self) -> Audio | None:
        return Audio(samples=self._samples, sample_rate=self._rate) if self._rate else None


def _kind(audio: Audio | None) -> tuple[int, int]:
    """Return channels and rate; none of both where there is no sound."""
    return (audio.num_channels, audio.sample_rate) if audio else (0, 0)


# What a row says of how its clip begins and ends. It has no meaning for clips that begin or end elsewhere.
ENDS = ("video", "last_image", "condition_type", "frame_index")
MAX_OVERLAP = 8  # half a second at 16 fps, unless the row says otherwise


def extend(
    pipe: Any, request: Request, *, duration_s: float, overlap: int | None = None, strength: float = 0.8
) -> Rendered:
    """Render `duration_s` seconds, in segments of the row's `num_frames`; the last one is cut to length.

    A model that takes an image starts each segment with the last frame of the one before. One that takes a
    video renders over the last `overlap` frames and then the last one held, with `strength`; others start a
    new clip. Both of these are cross-faded over `overlap` frames; None means 8, or half a segment if that is
    less. Sound is joined as the frames are. One generator draws all noise.
    """
    num_frames = max(num_frames_of(request, duration_s), 1)
    generator = request.generator()

    def rendered(able: Any, arguments: Mapping[str, Any]) -> Segment:
        return to_segment(able(**arguments, generator=generator, output_type="np"), able)

    segment = rendered(pipe, request.arguments)
    size, fps = len(segment.frames), request.fps or 1.0  # the rate is there: num_frames_of asks for it
    overlap = min(MAX_OVERLAP, size // 2) if overlap is None else overlap
    following = following_class(type(pipe).__name__, siblings.configs_of(pipe))
    able = pipe if following is None else siblings.as_sibling(pipe, following)
    is_from_image = following is not None and takes(following, "image")
    shared = 0 if is_from_image else overlap  # frames of a segment that lie over the last of the film
    if size <= max(shared, 1):
        raise RecipeError(f"segments with num_frames {size} cannot share {shared}", "raise num_frames")
    film = np.empty((num_frames, *segment.frames.shape[1:]), dtype=np.uint8)
    sound = FilmSound(segment.audio, num_frames=num_frames, fps=fps)
    length = 0

    def followed(last: Frames) -> Segment:
        """Return the segment after frames of the film, the last ones."""
        if following is None:
            return rendered(pipe, request.arguments)
        if is_from_image:
            rest = {name: value for name, value in request.arguments.items() if name not in ENDS}
            inputs = siblings.accepted(able, {**rest, "image": Image.fromarray(last[-1])})
            after = rendered(able, second_model.fitted_arguments(able, inputs))
            return after.from_second(fps)  # the first is the image
        frames = [*last[len(last) - overlap :], *[last[-1]] * (size - overlap)]
        inputs = {**request.arguments, "video": [*map(Image.fromarray, frames)], "strength": strength}
        return rendered(able, siblings.accepted(able, inputs))

    while True:
        over = shared if length else 0
        sound.join(segment, length, overlap=over)
        length = join_segment(film, length, segment.frames, overlap=over)
        if length == num_frames:
            return Rendered(pixels=Pixels.of(film), audio=sound.audio())
        segment = followed(film[:length])


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
    """Return the class itself. Raises RecipeError when it renders no video, or only between two images."""
    parameters = second_model.call_parameters(class_name)
    if "last_image" in parameters and configs.get("transformer", {}).get("pos_embed_seq_len"):
        problem = f"{class_name} of this model needs a last image, which later segments do not have"
        raise RecipeError(problem, "use the recipe keyframes")
    if not any(name in parameters for name in (*FRAME_PARAMETERS, "video")):
        raise RecipeError(f"{class_name} renders images, which cannot be extended", "use a video model")
    return class_name


def following_class(class_name: str, configs: Configs) -> str | None:
    """Return the pipeline that continues from frames, a picture if it can; None if segments are new."""
    if takes(class_name, "image"):
        return class_name
    return siblings.find_sibling(class_name, "image_to_video", configs) or siblings.find_sibling(
        class_name, "video_to_video", configs, redraws=True
    )


def check_extend(own: Mapping[str, Any], arguments: Mapping[str, Any]) -> Iterator[tuple[str, Refused]]:
    yield from check_duration(own["duration_s"])
    overlap = own["overlap"] or 0
    if overlap < 0:
        yield "overlap", Refused(reason="it must be 0 or more", fix="use 8, say")
    for name in set(FRAME_PARAMETERS) & set(arguments):
        if arguments[name] == 1:
            fix = "use a number that the model is made for"
            yield name, Refused(reason="a segment needs 2 frames or more", fix=fix)
        elif overlap >= arguments[name]:
            reason = f"a segment has only {count_text(arguments[name], 'frame')}"
            fix = f"use {arguments[name] // 4}, say, or a larger {name}"
            yield "overlap", Refused(reason=reason, fix=fix)
    yield from check_strength(own["strength"], arguments)
