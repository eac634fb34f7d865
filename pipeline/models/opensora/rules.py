"""What a row of Open-Sora may hold beyond what each argument may: named sizes, and frames to start from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any

from framefleet.pipeline.models.opensora.conditions import CONDITIONS, condition_of
from framefleet.pipeline.models.opensora.sizes import named_size
from framefleet.pipeline.specs.check import Refused
from framefleet.pipeline.specs.spec import PipelineSpec

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
    return sized, [*refused, *_of_condition(sized, spec)]


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


def _of_condition(arguments: Mapping[str, Any], spec: PipelineSpec) -> Iterator[tuple[str, Refused]]:
    """Yield what keeps the clip from beginning or ending with the row's image or video."""
    is_causal, ratio = spec.frame_rest == 1, spec.frame_step or 1
    given = [arguments.get(name) for name in ("image", "last_image", "video")]
    try:
        condition = condition_of(arguments.get("condition_type"), *given, is_causal=is_causal)
    except ValueError as error:
        fix = f"use one of {', '.join(CONDITIONS)}, with the image or video that it needs"
        if arguments.get("condition_type") is None:
            fix = "set it, to i2v_head or v2v_head, say, or leave the image or the video out"
        yield "condition_type", Refused(reason=str(error), fix=fix)
        return
    needed = condition.num_frames(ratio, is_causal=is_causal)
    video = arguments.get("video")
    if condition.is_video and video and video["num_frames"] < needed:
        yield (
            "video",
            Refused(
                reason=f"it has {video['num_frames']} frames, and {condition.name} takes {needed} of them",
                fix="give a longer one",
            ),
        )
    least = condition.least_frames(ratio, is_causal=is_causal)
    if arguments.get("num_frames", least) < least:
        reason = f"{condition.name} gives more than that"
        yield "num_frames", Refused(reason=reason, fix=f"use {least} or more")
