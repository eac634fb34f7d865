"""What a row of Open-Sora may hold beyond what each argument may: named sizes, and frames to start from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Set
from typing import Any

from framefleet.pipeline.model.specs.refusal import Refused
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.plugins.ports.opensora.conditions import CONDITIONS, FrameCondition, Packing, condition_of

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

    given: the names of those that the row itself gives, which go before the job's.
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
            f"it has {video['num_frames']} frames, and {condition.name} takes {condition.num_taken} of them"
        )
        yield "video", Refused(reason=reason, fix="give a longer one")
    broken = condition.broken_rule(arguments["num_frames"]) if "num_frames" in arguments else None
    if broken:
        rule, fix = broken
        yield "num_frames", Refused(reason=f"with {condition.name} it must be {rule}", fix=fix)
