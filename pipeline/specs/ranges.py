"""From an argument's name to the numbers it may be: others fail late, or are taken and render noise."""

from __future__ import annotations

import math
from collections.abc import Mapping

from framefleet.pipeline.request import MAX_FPS

_POSITIVE = (1, math.inf, "1 or more")
_SCALE = (0, math.inf, "0 or more")
_SHARE = (0, 1, "from 0 to 1")
_RATE = (1, MAX_FPS, f"from 1 to {MAX_FPS:g}")

_RANGES: dict[str, tuple[float, float, str]] = {
    "decode_chunk_size": _POSITIVE,
    "eta": _SHARE,
    # Open-Sora's: beyond these, steps have equal noise in fp32's 7 digits, at which the scheduler fails.
    "flow_shift": (0.001, 1000, "from 0.001 to 1000"),
    "fps": _RATE,
    "frame_rate": _RATE,
    "guidance_rescale": _SHARE,
    **dict.fromkeys(("image_height", "image_width", "image_steps"), _POSITIVE),
    "image_guidance": _SCALE,
    **dict.fromkeys(("keyframe_height", "keyframe_width", "keyframe_frames", "keyframe_steps"), _POSITIVE),
    "keyframe_guidance": _SCALE,
    "max_sequence_length": _POSITIVE,
    # Open-Sora's: VMAF's motion as its authors let a language model choose it, in their prompt_refine.py.
    "motion_score": (1, 15, "from 1 to 15"),
    "num_inference_steps": _POSITIVE,
    "strength": (math.ulp(0), 1, "above 0 and at most 1"),
}


def out_of_range(name: str, value: float) -> str | None:
    """Return what the argument must be, as "from 0 to 1", where `value` is not."""
    is_guidance = "guidance_scale" in name or name == "true_cfg_scale"
    anything = _SCALE if is_guidance else (-math.inf, math.inf, "")
    low, high, words = _RANGES.get(name, anything)
    return None if low <= value <= high else words


def check_ranges(arguments: Mapping[str, float | None]) -> None:
    """Raise ValueError for what is out of range, as the call of a pipeline does."""
    for name, value in arguments.items():
        if value is not None and (words := out_of_range(name, value)):
            raise ValueError(f"`{name}` is {value}: it must be {words}")
