"""Parts of videos: which frames of a file a cell means.

A cell names a part as text, `a.mp4#t=1.5,3` (seconds, as in W3C Media Fragments) or `a.mp4#frames=10,20`, or
as a mapping, {file: a.mp4, from: 1.5, to: 3}. The end is not included.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, get_args

from framefleet.pipeline.errors import InputError, count_text

_TOLERANCE_S = 1e-4  # tables round timestamps
_MOST_ROUNDING_S = 1e-3  # of files: Matroska has milliseconds; where a tick is a whole frame, none is rounded
_Unit = Literal["t", "frames"]
_WHOLE = r"\d{1,12}"
_NUMBER = rf"{_WHOLE}(?:\.\d{{1,12}})?"
_PART = re.compile(
    rf"(.+)#(?:t=(?P<t>{_NUMBER})?(?:,(?P<t_end>{_NUMBER}))?"
    rf"|frames=(?P<frames>{_WHOLE})?(?:,(?P<frames_end>{_WHOLE}))?)",
    re.DOTALL,
)
# Keys of mappings: unit, and whether it is the end.
_BOUNDS: dict[str, tuple[_Unit, bool]] = {
    "from": ("t", False),
    "to": ("t", True),
    "from_s": ("t", False),
    "to_s": ("t", True),
    "from_frame": ("frames", False),
    "to_frame": ("frames", True),
}
COLUMN_ENDS = ("_from_s", "_to_s", "_from_frame", "_to_frame")  # of names of columns that bound videos


@dataclass(frozen=True, slots=True)
class VideoPart:
    """The frames from `start` to before `end`. unit: t (seconds since the first frame) or frames."""

    unit: _Unit
    start: float
    end: float | None

    def frames(self, seconds: Sequence[float], tick_s: float) -> tuple[int, int]:
        """Return the index of the first frame and the number of frames. seconds: when each frame begins.

        tick_s: what these are rounded to. Raises InputError if the file does not have all of them.
        """
        tolerance_s = _TOLERANCE_S + min(tick_s, _MOST_ROUNDING_S)
        if self.unit == "t":
            first = bisect_left(seconds, self.start - tolerance_s)
            last = len(seconds) if self.end is None else bisect_left(seconds, self.end - tolerance_s)
        else:
            first, last = int(self.start), len(seconds) if self.end is None else int(self.end)
        # The last frame lasts about as long as the one before it.
        ends_at = seconds[-1] + (seconds[-1] - seconds[-2] if len(seconds) > 1 else math.inf)
        is_beyond = last > len(seconds) or (
            self.unit == "t" and (self.end or 0.0) > ends_at + 2 * tolerance_s
        )
        if is_beyond or first >= last:
            which = "the part ends later" if is_beyond else "none of them is in the part"
            problem = (
                f"it has {count_text(len(seconds), 'frame')}, the last at {seconds[-1]:g} s, and {which}"
            )
            raise InputError(problem, "correct where the part begins and ends")
        return first, last - first


def split_part(place: str) -> tuple[str, VideoPart | None]:
    """Return the file that a cell of a video column names, and the part of it."""
    match = _PART.fullmatch(place)
    if match is None:
        return place, None
    for unit in get_args(_Unit):
        start, end = match[unit], match[f"{unit}_end"]
        if start or end:
            return match[1], VideoPart(unit, float(start or 0), None if end is None else float(end))
    return place, None


def part_text(value: Mapping[str, Any]) -> str:
    """Return what a cell adds to the file's name for the part in a row's argument; "" for the whole file."""
    first = value.get("first_frame")
    return "" if first is None else f"#frames={first},{first + value['num_frames']}"


def input_cell(value: Mapping[str, Any]) -> str:
    """Return the cell for a row's input."""
    return f"{value['uri']}{part_text(value)}"


def bounding_columns(column: str, names: Collection[str]) -> tuple[str, ...]:
    """Return those of a table's columns that say which part of the videos in `column` is meant."""
    return tuple(name for name in (f"{column}{end}" for end in COLUMN_ENDS) if name in names)


def bounded(cells: Sequence[Any], column: str, bound: str, values: Sequence[Any]) -> list[Any]:
    """Return the cells of `column` with one more bound each: the values of the column `bound`."""
    key = bound.removeprefix(f"{column}_")
    return [
        cell
        if cell is None or value is None
        else {**(cell if isinstance(cell, Mapping) else {"file": cell}), key: value}
        for cell, value in zip(cells, values, strict=True)
    ]


def as_text(cell: Any) -> Any:
    """Return a mapping that names a part as text; other values are returned unchanged."""
    if not isinstance(cell, Mapping):
        return cell
    values = {key: value for key, value in cell.items() if value is not None}  # a column of structs has nulls
    place, units, bounds = values.pop("file", None), set[_Unit](), ["", ""]
    for key, value in values.items():
        if isinstance(value, str) and re.fullmatch(_NUMBER, value):  # of a CSV with another cell that is text
            value = Decimal(value)
        is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
        if key not in _BOUNDS or not is_number or not 0 <= value < 1e12 or ("frame" in key and value % 1):
            return cell
        unit, is_end = _BOUNDS[key]
        if bounds[is_end]:  # by another of its names
            return cell
        units.add(unit)
        bounds[is_end] = f"{round(abs(Decimal(str(value))), 0 if unit == 'frames' else 12).normalize():f}"
    if not isinstance(place, str) or len(units) > 1:
        return cell
    return f"{place}#{units.pop()}={','.join(bounds).rstrip(',')}" if units else place
