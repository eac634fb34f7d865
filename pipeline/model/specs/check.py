"""From a cell or a default to the value for the pipeline, or to why it is refused.

The range of a number depends on the argument's name: other numbers fail late, or render noise. Bounds on
sizes are far beyond what models render; they only prevent that a cell takes all memory. Rendered pictures and
clips have the same bounds as those in inputs (docs/inputs.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from framefleet.pipeline.errors import Refused, shown
from framefleet.pipeline.guards.json_text import EXACT_FLOATS, parse_json
from framefleet.pipeline.model.specs.signature import (
    FRAME_PARAMETERS,
    PART_KINDS,
    ListKind,
    Scalar,
    ScalarKind,
)
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.request import MAX_FPS, MAX_SEED, MIN_FPS

MAX_SIDE = 16_384  # of a picture of 4:1 with the largest number of pixels
MAX_PICTURE_PIXELS = 1 << 26  # 8192 x 8192
MAX_FRAMES = 16_384  # eleven minutes at 24 fps; models render a few hundred
MAX_CLIP_PIXELS = 1 << 32  # in all frames together: 51 GB as floats, which diffusers returns
MAX_STEPS = 10_000  # ten times the number of training steps
MAX_LIST = MAX_STEPS  # most lists are lists of steps
MAX_IMAGES = 64  # in one cell; of the largest size, they have as many pixels as the largest video


def too_large(height: int, width: int, num_frames: int = 1) -> str | None:
    """Return why a clip is too large for any reader, as the end of "height is ..., but ..."."""
    if height * width > MAX_PICTURE_PIXELS:
        return f"a picture of {height:,} x {width:,} has more than {MAX_PICTURE_PIXELS:,} pixels"
    if height * width * num_frames > MAX_CLIP_PIXELS:
        return f"{num_frames:,} frames of {height:,} x {width:,} have more than {MAX_CLIP_PIXELS:,} pixels"
    return None


_SIDE = (1, MAX_SIDE, f"from 1 to {MAX_SIDE:,}")
_FRAMES = (1, MAX_FRAMES, f"from 1 to {MAX_FRAMES:,}")
_STEPS = (1, MAX_STEPS, f"from 1 to {MAX_STEPS:,}")
_TOKENS = (1, 32_768, "from 1 to 32,768")  # text is padded to this length; no pipeline takes more than 3,000
_SCALE = (0, 1000, "from 0 to 1000")  # people use at most 30; fp16 ends at 65,504
_SHARE = (0, 1, "from 0 to 1")
_RATE = (1, MAX_FPS, f"from 1 to {MAX_FPS:g}")
# For all others: the range of Arrow's int64, and of fp32.
_WHOLE = (-(2**63), 2**63 - 1, "a whole number of 64 bits")
_FLOAT = (-3.4e38, 3.4e38, "a number in the range of fp32")

_RANGES: dict[str, tuple[float, float, str]] = {
    "decode_chunk_size": _FRAMES,
    "eta": _SHARE,
    # For Open-Sora: beyond these, steps have equal noise levels in fp32, and the scheduler fails.
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
    "seconds": (math.ulp(0), 3600, "above 0 and at most 3,600"),  # an engine's
    "strength": (math.ulp(0), 1, "above 0 and at most 1"),
}


def out_of_range(name: str, value: float) -> str | None:
    """Return what the argument must be, e.g. "from 0 to 1"; None if `value` is in its range."""
    is_guidance = "guidance_scale" in name or name == "true_cfg_scale"
    anything = _SCALE if is_guidance else _WHOLE if isinstance(value, int) else _FLOAT
    low, high, words = _RANGES.get(name, anything)
    return None if low <= value <= high else words


def check_ranges(arguments: Mapping[str, float | None]) -> None:
    """Raise ValueError for a value out of range, like a pipeline's own call."""
    for name, value in arguments.items():
        if value is not None and (words := out_of_range(name, value)):
            raise ValueError(f"`{name}` is {value}: it must be {words}")


_NOT_WHOLE = Refused(reason="it must be a whole number", fix="use a whole number in digits, e.g. 42")
_NOT_FINITE = Refused(reason="it must be a finite number", fix="use a number in digits, e.g. 7.5")
# As spreadsheets write numbers in half of the world, or ambiguous: "5,5", "1.000,5", "1,000".
_WITH_COMMA = re.compile(r"\s*[+-]?[0-9][0-9.,]*,[0-9]+\s*", re.ASCII)
_ROUNDED = re.compile(r"\s*[+-]?[0-9.]+e[+-]?[0-9]+\s*", re.ASCII | re.IGNORECASE)
_SURE_DIGITS = 18  # any number with as many digits is a valid seed
_MAX_DIGITS = 400  # of a number as text; Python refuses to read thousands
_WORDS: dict[ScalarKind, str] = {"int": "whole numbers", "float": "numbers", "str": "texts"}
_EXAMPLES = {"int": "[999, 749, 499]", "float": "[1.0, 0.75, 0.5]", "str": '["a", "b"]'}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]{1,3})?", re.ASCII | re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+")  # in a whole number, which has no other commas


def check_argument(name: str, value: Any, kind: ScalarKind, spec: PipelineSpec) -> Scalar | Refused:
    """Return `value` for the parameter `name`: 5 becomes 5.0 for a float, 9.0 becomes 9 for an int."""
    coerced = coerce(value, kind)
    if isinstance(coerced, Refused):
        return coerced
    if name in ("height", "width"):
        pixels, multiple = int(coerced), spec.size_multiple
        if pixels > MAX_SIDE:
            reason = f"a side may have at most {MAX_SIDE:,} pixels"
            return Refused(reason=reason, fix="use the model's own size")
        if pixels > 0 and pixels % multiple == 0:
            return pixels
        below = max(pixels // multiple * multiple, 0)
        near = f"use {below} or {below + multiple}" if below else f"use {multiple}"
        return Refused(reason=f"{_short(spec)} renders multiples of {multiple}", fix=near)
    if name in FRAME_PARAMETERS and not (spec.family.drops_repeats and spec.frame_rest == 0):
        return check_frames(int(coerced), spec)
    if name == "prompt":
        return coerced if str(coerced).strip() else Refused(reason="it is blank", fix="write a prompt")
    if isinstance(coerced, str) or (words := out_of_range(name, coerced)) is None:
        return coerced
    return Refused(reason=f"it must be {words}", fix=f"use {words.removeprefix('from ')}")


def check_seed(value: Any) -> int | Refused:
    if type(value) is int and 0 <= value <= MAX_SEED:
        return value  # the fast way: tables have millions of seeds
    if isinstance(value, str):
        if value.isdecimal() and value.isascii() and len(value) <= _SURE_DIGITS:
            return int(value)
        if _ROUNDED.fullmatch(value):
            fix = "format the column as a number without decimals, and write all digits of the seed"
            return Refused(reason="spreadsheets round numbers that they write like that", fix=fix)
    seed = coerce(value, "int")
    if isinstance(seed, Refused):
        return seed
    if not 0 <= int(seed) <= MAX_SEED:
        fix = "use a seed in that range, or leave it empty"
        return Refused(reason="seeds go from 0 to 2**63 - 1", fix=fix)
    return int(seed)


def check_fps(value: Any) -> float | Refused:
    rate = coerce(value, "float")
    if isinstance(rate, Refused):
        return rate
    if not MIN_FPS <= float(rate) <= MAX_FPS:
        return Refused(reason=f"it must be from {MIN_FPS:g} to {MAX_FPS:g}", fix="use e.g. 16, 24 or 30")
    return float(rate)


def coerce(value: Any, kind: ScalarKind) -> Scalar | Refused:
    """Return `value` as a `kind` if that loses nothing. Text is parsed, because cells of a CSV are text."""
    if kind == "str":
        return value if isinstance(value, str) else Refused(reason="it must be text", fix="put it in quotes")
    if kind == "bool" and not isinstance(value, bool):
        word = value.strip().lower() if isinstance(value, str) else ""
        wrong = Refused(reason="it must be true or false", fix="use one")
        return word == "true" if word in ("true", "false") else wrong
    return bool(value) if kind == "bool" else _whole(value) if kind == "int" else _number(value)


def _whole(value: Any) -> Scalar | Refused:
    if isinstance(value, str):  # which has all digits
        text = value.strip()
        if _WITH_COMMA.fullmatch(text):
            return _comma(text, is_whole=True)
        if len(text) > _MAX_DIGITS or not _NUMBER.fullmatch(text):
            return _NOT_WHOLE
        value = Decimal(text)
        if value.adjusted() >= _MAX_DIGITS:
            return _NOT_WHOLE
    if isinstance(value, Decimal):  # from "50.0", or from a column of decimals; it has all digits
        return int(value) if value.is_finite() and value == value.to_integral_value() else _NOT_WHOLE
    if isinstance(value, float) and value.is_integer():
        return int(value) if abs(value) < EXACT_FLOATS else inexact("float")
    return value if isinstance(value, int) and not isinstance(value, bool) else _NOT_WHOLE


def inexact(column: str) -> Refused:
    """Return why a whole number in a column of floats is refused. column: the type that rounds it."""
    fix = "write the column as int64; rounded digits are lost"
    return Refused(reason=f"a {column} column cannot store it exactly", fix=fix)


def _comma(text: str, *, is_whole: bool = False) -> Refused:
    values = text.strip().split(",")
    has_thousands = is_whole and _THOUSANDS.fullmatch(text.strip())
    point = text.strip().replace(".", "").replace(",", "" if has_thousands else ".")
    fix = f"write numbers with a decimal point and without thousands separators, e.g. {point}"
    if not has_thousands and (is_whole or len(values) > 2):
        fix = f"write one number; to render several, use a sweep: [{', '.join(values)}]"
    return Refused(reason="it has a comma", fix=fix)


def _number(value: Any) -> Scalar | Refused:
    if isinstance(value, str):
        if _WITH_COMMA.fullmatch(value):
            return _comma(value)
        value = value if _NUMBER.fullmatch(value.strip()) else math.nan  # Python also reads 1_000
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return _NOT_FINITE
    return number + 0.0 if math.isfinite(number) else _NOT_FINITE  # + 0.0: -0.0 is the same row as 0.0


def check_frames(frames: int, spec: PipelineSpec) -> int | Refused:
    step, model = spec.frame_step or 1, _short(spec)
    only, longest, least = spec.only_frames, spec.max_frames, spec.min_frames
    if frames > MAX_FRAMES:
        reason = f"a clip may have at most {MAX_FRAMES:,} frames"
        return Refused(reason=reason, fix="use the model's own number")
    if only and frames != only:
        return Refused(reason=f"{model} only renders {only} frames", fix=f"use {only}")
    if longest and frames > longest:
        return Refused(reason=f"{model} renders at most {longest} frames", fix=f"use {longest} or less")
    if 0 < frames < (least or 1):
        return Refused(reason=f"{model} renders at least {least} frames", fix=f"use {least} or more")
    first = spec.frame_rest % step
    if frames == 1 or (frames > 0 and frames % step == first):
        return frames
    below = (frames - first) // step * step + first
    counts = f"{step}k + {first}" if first else f"{step}k"
    rule = f"{model} renders {counts} frames" if step > 1 else "a clip has 1 frame or more"
    return Refused(reason=rule, fix=f"use {below} or {below + step}" if below > 0 else f"use {step + first}")


def _short(spec: PipelineSpec) -> str:
    return spec.class_name.removesuffix("Pipeline")


def check_list(
    name: str, cell: Any, kind: ListKind, entries: int | None = None
) -> list[Scalar] | tuple[Scalar, ...] | Refused:
    """Return a list or tuple for the parameter `name`. cell: a list, or a list as JSON text."""
    part = PART_KINDS[kind]
    what, example = f"a list of {_WORDS[part]}", _EXAMPLES[part]
    if entries:
        what, example = f"a list of {entries} {_WORDS[part]}", str([*(480, 832, 16, 0)[:entries]])
    wanted = Refused(reason=f"it must be {what}", fix=f"use one, e.g. {example}")
    parts = parsed_list(cell)
    if not isinstance(parts, list) or not parts or (entries and len(parts) != entries):
        return wanted
    if len(parts) > MAX_LIST:
        return Refused(reason=f"a list may have at most {MAX_LIST:,} entries", fix="shorten it")
    values: list[Scalar] = []
    for position, value in enumerate(parts):
        checked = coerce(value, part)
        if isinstance(checked, Refused):
            return Refused(reason=f"its entry {position} is {shown(value)}: {checked.reason}", fix=wanted.fix)
        if not isinstance(checked, str) and (words := out_of_range(name, checked)):
            return Refused(reason=f"its entry {position}, {shown(value)}, must be {words}", fix=wanted.fix)
        values.append(checked)
    return values if entries is None else tuple(values)


def parsed_list(cell: Any) -> Any:
    """Return the list in a cell, which may be JSON text; for other cells, something that is not a list."""
    if not isinstance(cell, str):
        return list(cell) if isinstance(cell, tuple) else cell
    try:
        return parse_json(cell)
    except ValueError:
        return None


def is_list(cell: Any) -> bool:
    return isinstance(cell, list | tuple) or (isinstance(cell, str) and cell.lstrip().startswith("["))
