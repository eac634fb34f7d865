"""From a clip's frames and its record to its scores. What fails is null, and reported.

A clip is worth more than a score of it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from framefleet.pipeline.errors import FramefleetError
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.outputs.frames.frames import Frames, Pictures
from framefleet.pipeline.outputs.parts.records import told_arguments
from framefleet.pipeline.pickling import quickly_pickled
from framefleet.pipeline.scores.score import ClipScore, ScoreValue

_MAX_MESSAGE = 300  # characters of what a function said

log = logging.getLogger(__name__)


@quickly_pickled
@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """values: by column; None where there is none. errors: why, by column, of those that failed."""

    values: Mapping[str, ScoreValue] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)


def score_clip(scores: Sequence[ClipScore], pictures: Pictures | None, record: Mapping[str, Any]) -> Scored:
    """Return all scores of one clip; of sound alone each is None. Raises nothing.

    pictures: as records have them; alpha is laid over black, light beyond [0, 1] is cut off, and layers
    count as frames. record: its columns; functions get them with the arguments besides them.
    """
    if not scores:
        return Scored()
    if pictures is None:
        return Scored(values={score.name: None for score in scores})
    try:
        frames, told = plain_frames(pictures), with_arguments(record)
    except Exception as error:  # no memory for a second copy: the clip is there
        names = [score.name for score in scores]
        return Scored(values=dict.fromkeys(names), errors=dict.fromkeys(names, _said(error)))
    values: dict[str, ScoreValue] = {}
    errors: dict[str, str] = {}
    for score in scores:
        try:
            values[score.name] = _number(score, score.function(frames, told))
        except (Exception, SystemExit) as error:  # of anybody's function, which may call sys.exit
            values[score.name], errors[score.name] = None, _said(error)
    return Scored(values=values, errors=errors)


def _said(error: BaseException) -> str:
    said = error.problem if isinstance(error, FramefleetError) else f"{type(error).__name__}: {error}"
    return public_text(said)[:_MAX_MESSAGE]


def plain_frames(pictures: Pictures) -> Frames:
    """Return frames as scores take them, (T, H, W, 3) uint8, which no function may change."""
    whole = pictures
    if whole.dtype != np.uint8:
        whole = (np.nan_to_num(whole).clip(0, 1) * 255).round()
    colours = whole[..., :3].astype(np.uint8)
    if whole.shape[-1] == 4:
        colours = (colours.astype(np.uint16) * whole[..., 3:].astype(np.uint16) // 255).astype(np.uint8)
    frames: Frames = np.ascontiguousarray(colours)
    frames.flags.writeable = False
    return frames


def with_arguments(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's columns, and its arguments besides them where no column has that name."""
    return {**told_arguments(record), **record}


def _number(score: ClipScore, given: object) -> ScoreValue:
    """Return what a function gave as a cell of its column. Raises for what is no finite number."""
    value: Any = given.item() if hasattr(given, "item") else given  # of NumPy, or torch: raises for many
    if value is None:
        return None
    if not isinstance(value, bool | int | float):
        raise TypeError(f"it returned {type(given).__name__}, not a number")
    if not math.isfinite(value):
        raise ValueError(f"it returned {value}")
    kinds = {pa.bool_(): bool, pa.int64(): int, pa.float64(): float}
    number: ScoreValue = kinds[score.kind](value)
    return number
