"""Frames that a clip starts from or ends with: latent frames, and the mask that shows them to the model.

And what a row may hold beyond what each argument may: named sizes, and such frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image, fromarray
from torch import Tensor

from framefleet.api.clips import Frames
from framefleet.api.errors import Refused
from framefleet.api.models import PipelineSpec
from framefleet.plugins.ports.families import OPENSORA_MAX_FRAMES

_Given = Any  # an image or a video, or a list of those; None where there is none

CONDITIONS = {  # latent frames at the start, at the end, and whether they come from a video
    "t2v": (0, 0, False),
    "i2v_head": (1, 0, False),
    "i2v_tail": (0, 1, False),
    "i2v_loop": (1, 1, False),
    "v2v_head": (8, 0, True),
    "v2v_tail": (0, 8, True),
    "v2v_head_easy": (16, 0, True),
    "v2v_tail_easy": (0, 16, True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How the autoencoder packs frames: `ratio` into one latent frame, and the first alone if it is causal.

    Where it is not, a single latent frame is decoded as an image, and that of an image in a clip as `ratio`
    equal frames, all but one of which are dropped.
    """

    ratio: int
    is_causal: bool

    @property
    def max_frames(self) -> int:
        return OPENSORA_MAX_FRAMES if self.is_causal else OPENSORA_MAX_FRAMES // self.ratio * self.ratio

    def num_frames(self, num_latent: int) -> int:
        return (num_latent - self.is_causal) * self.ratio + self.is_causal

    def num_latent(self, num_frames: int) -> int:
        return max(1, (num_frames - self.is_causal) // self.ratio + self.is_causal)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCondition:
    """Which frames of the clip are given. num_head, num_tail: latent frames at its start and its end."""

    name: str
    num_head: int
    num_tail: int
    is_video: bool
    packing: Packing

    @property
    def num_given(self) -> int:
        return self.num_head + self.num_tail

    @property
    def num_taken(self) -> int:
        """The frames of the image or video that become the latent frames at one end."""
        return self.packing.num_frames(max(self.num_head, self.num_tail)) if self.is_video else 1

    @property
    def num_dropped(self) -> tuple[int, int]:
        """How many of the frames that are decoded are dropped at the start, and at the end."""
        repeats = 0 if self.is_video or self.packing.is_causal else self.packing.ratio - 1
        return self.num_head * repeats, self.num_tail * repeats

    @property
    def max_frames(self) -> int:
        return self.packing.max_frames - sum(self.num_dropped)

    def broken_rule(self, num_frames: int) -> tuple[str, str] | None:
        """Return None where this many frames can be rendered, or else what the number must be, and a fix."""
        ratio, dropped = self.packing.ratio, sum(self.num_dropped)
        if num_frames == 1 and not self.num_given:
            return None
        rest = (self.packing.is_causal - dropped) % ratio
        least_latent = max(self.num_given, 1 if self.packing.is_causal else 2)
        least = self.packing.num_frames(least_latent) - dropped
        if num_frames < least:
            return f"at least {least}", f"use {least} or more"
        if num_frames > self.max_frames:
            return f"at most {self.max_frames}", f"use {self.max_frames} or less"
        if num_frames % ratio == rest:
            return None
        below = num_frames - (num_frames - rest) % ratio
        return f"{ratio}k + {rest}" if rest else f"{ratio}k", f"use {below} or {below + ratio}"

    def fitted(self, num_frames: int) -> int:
        """Return the frames of the clip that is left of `num_frames`, without those that are dropped."""
        if self.broken_rule(num_frames) is None:
            return num_frames
        ratio = self.packing.ratio
        left = -(-num_frames // ratio) * ratio - sum(self.num_dropped)
        return left if left < num_frames and self.broken_rule(left) is None else num_frames


def condition_of(
    name: str | None, image: _Given, last_image: _Given, video: _Given, *, packing: Packing
) -> FrameCondition:
    """Return the condition of that name, or without one what was given: images at the ends, or a video first.

    Raises ValueError for a name that is not known, and when what it needs was not given.
    """
    has_image = image is not None or last_image is not None
    if name is None and video is not None and has_image:
        raise ValueError("`condition_type` has to say which counts, as an image and a video are given")
    if name is None and video is not None:
        name = "v2v_head"
    elif name is None and has_image:
        name = "i2v_tail" if image is None else "i2v_head" if last_image is None else "i2v_loop"
    name = name or "t2v"
    if name not in CONDITIONS:
        raise ValueError(f"`condition_type` has to be one of {', '.join(CONDITIONS)} but is {name!r}")
    head, tail, is_video = CONDITIONS[name]
    has_input = video is not None if is_video else has_image if tail else image is not None
    if (head or tail) and not has_input:
        raise ValueError(f"`condition_type` {name!r} needs `{'video' if is_video else 'image'}`")
    first = int(packing.is_causal and is_video)  # 33 frames are 9 latent ones then, not 8
    return FrameCondition(
        name=name,
        num_head=head and head + first,
        num_tail=tail and tail + first,
        is_video=is_video,
        packing=packing,
    )


def training_inputs(own: Mapping[str, Any], frames: Frames) -> dict[str, _Given]:
    """Return what of a clip the pipeline is given in training: nothing, images or all, as the row says."""
    head, tail, is_video = CONDITIONS.get(own.get("condition_type", "t2v"), (0, 0, False))
    if is_video:
        return {"video": [fromarray(frame) for frame in frames]}
    first = {"image": fromarray(frames[0])} if head else {}
    return first | ({"last_image": fromarray(frames[-1])} if tail else {})


def given_to_rows(
    image: _Given, last_image: _Given, video: _Given, *, num_prompts: int
) -> list[dict[str, _Given]]:
    """Return `image`, `last_image` and `video` of each prompt. Each is one for all, or one for each."""
    columns: dict[str, list[_Given]] = {}
    for name, value in {"image": image, "last_image": last_image, "video": video}.items():
        is_one = value is None or isinstance(value, Image)
        if is_one or (name == "video" and all(isinstance(frame, Image) for frame in value)):
            columns[name] = [value] * num_prompts
        elif len(value) == num_prompts:
            columns[name] = list(value)
        else:
            raise ValueError(f"`{name}` holds {len(value)}, the prompts are {num_prompts}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def given_frames(
    condition: FrameCondition, *, image: Image | None, last_image: Image | None, video: list[Image] | None
) -> tuple[list[Image], list[Image]]:
    """Return the frames that the clip begins with and ends with. One image alone stands for both ends.

    Raises ValueError for a video that is too short.
    """
    if condition.is_video:
        frames, taken = video or [], condition.num_taken
        if len(frames) < taken:
            name = condition.name
            raise ValueError(
                f"`condition_type` {name!r} takes {taken} of the frames of `video`, which has {len(frames)}"
            )
        head, tail = frames[:taken], frames[-taken:]
    else:
        head = [picture for picture in (image or last_image,) if picture]
        tail = [picture for picture in (last_image or image,) if picture]
    return head if condition.num_head else [], tail if condition.num_tail else []


def place(head: Tensor | None, tail: Tensor | None, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return (mask, reference) of the clip: (B, 1, T, H, W), (B, C, T, H, W); zero where nothing is given.

    head, tail: given latent frames, (B, C, n, H, W). latents: of the clip, for its shape.
    """
    mask, reference = torch.zeros_like(latents[:, :1]), torch.zeros_like(latents)
    if head is not None:
        mask[:, :, : head.shape[2]] = 1
        reference[:, :, : head.shape[2]] = head
    if tail is not None:
        mask[:, :, -tail.shape[2] :] = 1
        reference[:, :, -tail.shape[2] :] = tail
    return mask, reference


RESOLUTIONS = {"256px": 256**2, "768px": 768**2}  # pixels of a frame, whatever its shape
ASPECT_RATIOS = (  # width to height
    "16:9",
    "9:16",
    "1:1",
    "4:3",
    "3:4",
    "3:2",
    "2:3",
    "2:1",
    "1:2",
    "1.85:1",
    "1:1.85",
    "2.39:1",
    "1:2.39",
)


def named_size(
    resolution: str | None = None, aspect_ratio: str | None = None, *, multiple: int
) -> tuple[int, int]:
    """Return (height, width): multiples of `multiple`, about as many pixels as the resolution says.

    What is not named is 256px, and 16:9. The longer side is rounded down first, the other one fills up what
    is left. Raises ValueError for a name that is not known.
    """
    resolution, aspect_ratio = resolution or "256px", aspect_ratio or "16:9"
    for name, value, names in (
        ("resolution", resolution, RESOLUTIONS),
        ("aspect_ratio", aspect_ratio, ASPECT_RATIOS),
    ):
        if value not in names:
            raise ValueError(f"`{name}` has to be one of {', '.join(names)} but is {value!r}")
    pixels = RESOLUTIONS[resolution]
    wide, high = (float(side) for side in aspect_ratio.split(":"))
    longer = int(math.sqrt(pixels * max(wide, high) / min(wide, high))) // multiple * multiple
    shorter = pixels // longer // multiple * multiple
    return (shorter, longer) if wide >= high else (longer, shorter)


Refusals = list[tuple[str, Refused]]
_NAMES = ("resolution", "aspect_ratio")
_SIDES = ("height", "width")


def row_rules(
    arguments: dict[str, Any], given: Set[str], spec: PipelineSpec
) -> tuple[dict[str, Any], Refusals]:
    """Return the arguments with height and width for a named size, and what is wrong with them.

    given: the names of those that the row or `overrides` gives, which go before the job's defaults.
    """
    sized, refused = _sized(arguments, given, spec)
    conditioned, more = _conditioned(sized, given, spec)
    return conditioned, [*refused, *more]


def _sized(arguments: dict[str, Any], given: Set[str], spec: PipelineSpec) -> tuple[dict[str, Any], Refusals]:
    plain = {name: value for name, value in arguments.items() if name not in _NAMES}
    names = {name: arguments[name] for name in _NAMES if name in arguments}
    is_named, is_measured = not given.isdisjoint(_NAMES), not given.isdisjoint(_SIDES)
    if not names or (is_measured and not is_named):
        return plain, []
    first = next(iter(names))
    if is_measured:
        return plain, [(first, Refused(reason="the row gives height or width too", fix="leave one out"))]
    try:
        height, width = named_size(
            names.get("resolution"), names.get("aspect_ratio"), multiple=spec.size_multiple
        )
    except ValueError as error:
        return plain, [(first, Refused(reason=str(error), fix="use one of them"))]
    return plain | {"height": height, "width": width}, []


def _conditioned(
    arguments: dict[str, Any], given: Set[str], spec: PipelineSpec
) -> tuple[dict[str, Any], Refusals]:
    """Return the arguments with as many frames as there are with the row's images, unless it says how many;
    and what keeps the clip from beginning or ending with its image or video."""
    packing = Packing(ratio=spec.frame_step or 1, is_causal=spec.frame_rest == 1)
    image = arguments.get("image") or arguments.get("image_model")  # of which the recipe makes the image
    inputs = (image, arguments.get("last_image"), arguments.get("video"))
    try:
        condition = condition_of(arguments.get("condition_type"), *inputs, packing=packing)
    except ValueError as error:
        fix = f"use one of {', '.join(CONDITIONS)}, with the image or video that it needs"
        if arguments.get("condition_type") is None:
            fix = "set it, to i2v_head or v2v_head, say, or leave the image or the video out"
        return arguments, [("condition_type", Refused(reason=str(error), fix=fix))]
    if "num_frames" in arguments and "num_frames" not in given:
        arguments = arguments | {"num_frames": condition.fitted(arguments["num_frames"])}
    return arguments, list(_of_condition(arguments, condition))


def _of_condition(arguments: Mapping[str, Any], condition: FrameCondition) -> Iterator[tuple[str, Refused]]:
    video = arguments.get("video")
    if condition.is_video and video and video["num_frames"] < condition.num_taken:
        reason = (
            f"{condition.name} takes {condition.num_taken} of its frames, and it has {video['num_frames']}"
        )
        yield "video", Refused(reason=reason, fix="use a longer one")
    broken = condition.broken_rule(arguments["num_frames"]) if "num_frames" in arguments else None
    if broken:
        rule, fix = broken
        yield "num_frames", Refused(reason=f"with {condition.name} it must be {rule}", fix=fix)
