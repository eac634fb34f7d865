"""The numbers that an argument may be, by its name: others fail late, or are taken and render noise.

Bounds on sizes are far beyond what models render, so that no cell takes all memory. Pictures and clips are
bounded as those that rows may start from are (docs/inputs.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from framefleet.pipeline.request import MAX_FPS

MAX_SIDE = 16_384  # of the widest picture of this many pixels, 4:1
MAX_PICTURE_PIXELS = 1 << 26  # 8192 x 8192
MAX_FRAMES = 16_384  # eleven minutes at 24 fps; models render some hundred
MAX_CLIP_PIXELS = 1 << 32  # in all frames together: 51 GB as the floats that diffusers returns
MAX_STEPS = 10_000  # ten times what schedulers are trained with
MAX_LIST = MAX_STEPS  # lists are mostly those of steps

MAX_IMAGES = 64  # of one cell, each as large as an image may be: as many pixels as a video may have


def too_large(height: int, width: int, num_frames: int = 1) -> str | None:
    """Return why a clip is more than anything reads, as the end of "height is ..., but ..."."""
    if height * width > MAX_PICTURE_PIXELS:
        return f"a picture of {height:,} x {width:,} has more than {MAX_PICTURE_PIXELS:,} pixels"
    if height * width * num_frames > MAX_CLIP_PIXELS:
        size = f"{num_frames:,} frames of {height:,} x {width:,}"
        return f"{size} have more than {MAX_CLIP_PIXELS:,} pixels"
    return None


_SIDE = (1, MAX_SIDE, f"from 1 to {MAX_SIDE:,}")
_FRAMES = (1, MAX_FRAMES, f"from 1 to {MAX_FRAMES:,}")
_STEPS = (1, MAX_STEPS, f"from 1 to {MAX_STEPS:,}")
_TOKENS = (1, 32_768, "from 1 to 32,768")  # text is padded to them; no pipeline takes more than 3,000
_SCALE = (0, 1000, "from 0 to 1000")  # models are given 30 at most; fp16 ends at 65,504
_SHARE = (0, 1, "from 0 to 1")
_RATE = (1, MAX_FPS, f"from 1 to {MAX_FPS:g}")
# Of all others: what a column of Arrow's holds, and what fp32 does.
_WHOLE = (-(2**63), 2**63 - 1, "a whole number of 64 bits")
_NUMBER = (-3.4e38, 3.4e38, "a number that fp32 holds")

_RANGES: dict[str, tuple[float, float, str]] = {
    "decode_chunk_size": _FRAMES,
    "eta": _SHARE,
    # Open-Sora's: beyond these, steps have equal noise in fp32's 7 digits, at which the scheduler fails.
    "flow_shift": (0.001, 1000, "from 0.001 to 1000"),
    "fps": _RATE,
    "frame_rate": _RATE,
    "guidance_rescale": _SHARE,
    **dict.fromkeys(("image_height", "image_width", "keyframe_height", "keyframe_width"), _SIDE),
    **dict.fromkeys(("image_steps", "keyframe_steps", "num_inference_steps"), _STEPS),
    **dict.fromkeys(("image_guidance", "keyframe_guidance"), _SCALE),
    **dict.fromkeys(("keyframe_frames", "num_keyframes"), _FRAMES),
    "max_sequence_length": _TOKENS,
    # VMAF's motion, which a language model may choose: github.com/hpcaitech/Open-Sora prompt_refine.py
    "motion_score": (1, 15, "from 1 to 15"),
    "overlap": (0, MAX_FRAMES, f"from 0 to {MAX_FRAMES:,}"),
    "strength": (math.ulp(0), 1, "above 0 and at most 1"),
}


def out_of_range(name: str, value: float) -> str | None:
    """Return what the argument must be, as "from 0 to 1", where `value` is not."""
    is_guidance = "guidance_scale" in name or name == "true_cfg_scale"
    anything = _SCALE if is_guidance else _WHOLE if isinstance(value, int) else _NUMBER
    low, high, words = _RANGES.get(name, anything)
    return None if low <= value <= high else words


def check_ranges(arguments: Mapping[str, float | None]) -> None:
    """Raise ValueError for what is out of range, as the call of a pipeline does."""
    for name, value in arguments.items():
        if value is not None and (words := out_of_range(name, value)):
            raise ValueError(f"`{name}` is {value}: it must be {words}")
