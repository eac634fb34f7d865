"""From a kind of condition to the latent frames that are given, and to the mask that tells the model so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

Given = Any  # an image or a video, or a list of those; None where there is none

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
class Condition:
    """Which frames of the clip are given. num_head, num_tail: latent frames at its start and its end."""

    name: str
    num_head: int
    num_tail: int
    is_video: bool

    @property
    def num_given(self) -> int:
        return self.num_head + self.num_tail

    def num_frames(self, ratio: int, *, is_causal: bool) -> int:
        """Return the frames of the image or video that become the latent frames at one end."""
        first = int(is_causal or not self.is_video)
        return (max(self.num_head, self.num_tail) - first) * ratio + first

    def least_frames(self, ratio: int, *, is_causal: bool) -> int:
        """Return the frames of the shortest clip that has room for the latent frames of both ends."""
        first = int(is_causal)
        return max(1, (self.num_given - first) * ratio + first)


def condition_of(
    name: str | None, image: Given, last_image: Given, video: Given, *, is_causal: bool
) -> Condition:
    """Return the condition of that name, or without one what was given: images at the ends, or a video first.

    is_causal: whether the autoencoder packs the first frame alone: 33 frames are 9 latent ones, not 8.
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
    found = video is not None if is_video else has_image if tail else image is not None
    if (head or tail) and not found:
        raise ValueError(f"`condition_type` {name!r} needs `{'video' if is_video else 'image'}`")
    first = int(is_causal and is_video)
    return Condition(
        name=name, num_head=head and head + first, num_tail=tail and tail + first, is_video=is_video
    )


def given_to_rows(
    image: Given, last_image: Given, video: Given, *, num_prompts: int, times: int
) -> list[dict[str, Given]]:
    """Return `image`, `last_image` and `video` of each clip; every prompt has `times` clips."""
    named = {"image": image, "last_image": last_image, "video": video}
    columns = [_each(given, num_prompts, name) for name, given in named.items()]
    return [dict(zip(named, row, strict=True)) for row in zip(*columns, strict=True) for _ in range(times)]


def _each(given: Given, num_prompts: int, name: str) -> list[Given]:
    """Return the image or video of each prompt; `given` is one for all, or a list with one for each."""
    if given is None or isinstance(given, Image):
        return [given] * num_prompts
    if name == "video" and all(isinstance(frame, Image) for frame in given):
        return [given] * num_prompts
    if len(given) != num_prompts:
        raise ValueError(f"`{name}` holds {len(given)} for {num_prompts} prompts")
    return list(given)


def given_frames(
    condition: Condition,
    num_frames: int,
    *,
    image: Image | None,
    last_image: Image | None,
    video: list[Image] | None,
) -> tuple[list[Image], list[Image]]:
    """Return the frames that the clip begins with and ends with. One image alone stands for both ends.

    num_frames: of the video that are taken. Raises ValueError when it has fewer.
    """
    if condition.is_video:
        frames = video or []
        if len(frames) < num_frames:
            raise ValueError(
                f"`condition_type` {condition.name!r} takes {num_frames} frames of `video`, "
                f"which has {len(frames)}"
            )
        head, tail = frames[:num_frames], frames[-num_frames:]
    else:
        head = [found for found in (image or last_image,) if found]
        tail = [found for found in (last_image or image,) if found]
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
