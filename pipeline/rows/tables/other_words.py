"""From `size`, `seconds` and `n`, in cells and in a job's defaults, to the arguments and rows that they mean.

They mean the same as in OpenAI's API: size is width x height, seconds are frames at the clip's frame rate,
and n is that many rows with consecutive seeds. https://platform.openai.com/docs/api-reference/videos
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from framefleet.pipeline.errors import JobError, Refused, shown
from framefleet.pipeline.model.specs.check import MAX_SIDE, check_argument, coerce
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS, ArgumentKind
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.recipes.recipe import Recipe

SIZE_WORD, SECONDS, N = "size", "seconds", "n"
WORDS: dict[str, ArgumentKind] = {SIZE_WORD: "str", SECONDS: "float", N: "int"}
MAX_ROWS_OF_ONE = 10_000  # a larger number is a typing error, or means something else
MEANINGS = {  # for notes
    SECONDS: "is rendered as the nearest number of frames that the model takes",
    N: "says how many clips a row makes: each becomes a separate row, with the next seed",
}
SIDES = ("width", "height")
_SIZE = re.compile(r"\s*([1-9]\d{0,4})\s*[xX×*]\s*([1-9]\d{0,4})\s*", re.ASCII)  # Wan's own: 1280*720
_AUTO = "auto"  # the model's default size
_MAX_SECONDS = 3600
_NO_SIZE = Refused(
    reason="it must be width x height",
    fix='write e.g. "1280x720"; if the column means something else, rename it',
)


def words_of(spec: PipelineSpec, recipe: Recipe) -> dict[str, ArgumentKind]:
    """Return the words that rows of a model may use: those that are not arguments of the model itself."""
    own = spec.parameters.keys() | {parameter.name for parameter in recipe.parameters()}
    fits = {
        SIZE_WORD: own.issuperset(SIDES),
        SECONDS: frames_name(spec) is not None and "duration_s" not in own,
        N: True,
    }
    return {name: kind for name, kind in WORDS.items() if fits[name] and name not in own}


def frames_name(spec: PipelineSpec) -> str | None:
    """Return the pipeline's parameter for the number of frames; None if it has none."""
    return next((name for name in FRAME_PARAMETERS if name in spec.settable()), None)


def check_size(cell: Any) -> tuple[int, int] | Refused | None:
    """Return (width, height); None for "auto"."""
    if isinstance(cell, str) and cell.strip().lower() == _AUTO:
        return None
    match = _SIZE.fullmatch(cell) if isinstance(cell, str) else None
    if match is None:
        return _NO_SIZE
    width, height = int(match[1]), int(match[2])
    if max(width, height) > MAX_SIDE:
        return Refused(reason=f"a side may have at most {MAX_SIDE:,} pixels", fix="use the model's own size")
    return width, height


def check_seconds(cell: Any) -> float | Refused:
    seconds = coerce(cell, "float")
    if isinstance(seconds, Refused):
        return seconds
    if not 0 < float(seconds) <= _MAX_SECONDS:
        return Refused(reason=f"it must be above 0 and at most {_MAX_SECONDS:,}", fix="use seconds, e.g. 5")
    return float(seconds)


def check_n(cell: Any) -> int | Refused:
    num = coerce(cell, "int")
    if isinstance(num, Refused):
        return num
    if not 1 <= int(num) <= MAX_ROWS_OF_ONE:
        reason = f"it must be from 1 to {MAX_ROWS_OF_ONE:,}"
        fix = "write the number of clips; if the column means something else, rename it"
        return Refused(reason=reason, fix=fix)
    return int(num)


def check_one_of_n(cell: Any) -> int | Refused:
    """Check n after `repeated_table.py`, which leaves it above 1 only if the seeds would be too large."""
    num = check_n(cell)
    is_beyond = not isinstance(num, Refused) and num > 1
    return Refused(reason="its seeds go beyond 2**63 - 1", fix="use a smaller seed") if is_beyond else num


def with_sides(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job's defaults or overrides with width and height in place of size. Raises JobError."""
    others = {name: value for name, value in values.items() if name != SIZE_WORD}
    if values.get(SIZE_WORD) is None:
        return others
    size = check_size(values[SIZE_WORD])
    if isinstance(size, Refused):
        return dict(values)  # refused later, like any other value
    if size is None and section == "overrides":  # rows keep their own, so it would do nothing
        problem = f"overrides.{SIZE_WORD} is {shown(values[SIZE_WORD])}, which overrides nothing"
        raise JobError(problem, "write the size of all rows, e.g. 1280x720, or leave it out")
    for name, side in zip(SIDES, size or (), strict=False):
        if others.setdefault(name, side) != side:
            of_size = f"{section}.{SIZE_WORD} is {shown(values[SIZE_WORD])}"
            problem = f"{of_size}, but {section}.{name} is {shown(others[name])}"
            raise JobError(problem, f"leave {name} out")
    return others


def sides_in(
    size: tuple[int, int], arguments: Mapping[str, Any], own: Collection[str], spec: PipelineSpec
) -> Iterator[tuple[str, int | Refused]]:
    """Yield the names width and height, each with its value, or why the row's size cannot be rendered.

    own: the arguments that the row itself sets.
    """
    for name, side in zip(SIDES, size, strict=True):
        checked: Any = check_argument(name, side, "int", spec)
        if isinstance(checked, Refused):
            checked = Refused(reason=f"for its {name}, {checked.reason}", fix=checked.fix)
        elif name in own and arguments[name] != side:
            checked = Refused(reason=f"{name} is {arguments[name]}", fix=f"leave {name} out")
        yield name, checked


def frames_in(
    seconds: float, fps: float, arguments: Mapping[str, Any], own: Collection[str], spec: PipelineSpec
) -> int | Refused:
    """Return the number of frames that the model takes and that is nearest to the seconds.

    own: the arguments that the row itself sets.
    """
    name = frames_name(spec)
    assert name is not None, "else rows of the model have no seconds"
    wanted, step = seconds * fps, spec.frame_step or 1
    rest = spec.frame_rest if spec.frame_step else 0
    num_frames = max(round((wanted - rest) / step), 0 if rest else 1) * step + rest
    if spec.only_frames and abs(spec.only_frames - wanted) <= wanted / 2:
        num_frames = spec.only_frames
    checked: Any = check_argument(name, num_frames, "int", spec)
    if isinstance(checked, Refused):
        return Refused(
            reason=f"at {fps:g} fps that is {num_frames:,} frames, and {checked.reason}",
            fix=f"{checked.fix}: the seconds are {name} / fps",
        )
    if name in own and arguments[name] != num_frames:
        reason = f"at {fps:g} fps that is {num_frames:,} frames, and {name} is {arguments[name]:,}"
        return Refused(reason=reason, fix=f"leave {name} out")
    return num_frames
