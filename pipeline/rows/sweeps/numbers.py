"""From a range as it is written to its numbers, both ends included."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.rows.sweeps.settings import Spread

MAX_VALUES = 1_000_000  # values of one argument that are kept in memory; whole numbers in steps are not
_DIGITS = 6  # of numbers between: no argument is read more finely, and machines may differ in the sixteenth
_SHORT = re.compile(r"\s*(-?\d{1,19})\s*-\s*(-?\d{1,19})\s*(?::\s*(\d{1,19})\s*)?")
_INT64 = range(-(2**63), 2**63)

NumberList = range | list[float] | list[int]


def short_range(text: object, place: str) -> range | None:
    """Return what "0-63" or "8-64:8" stands for, None where it is no such text. Raises JobError."""
    found = _SHORT.fullmatch(text) if isinstance(text, str) else None
    return whole_range(int(found[1]), int(found[2]), int(found[3] or 1), place) if found else None


def whole_range(first: int, last: int, step: int, place: str) -> range:
    """Return the whole numbers from `first` to `last`, upwards or downwards."""
    if step < 1:
        raise JobError(f"{place}.step is {step}", "use 1 or more")
    if first not in _INT64 or last not in _INT64:
        raise JobError(f"{place} goes beyond 64 bits", "use smaller numbers")
    return range(first, last + 1, step) if first <= last else range(first, last - 1, -step)


def count(numbers: NumberList | list[Any]) -> int:
    """Return how many there are: len() of a range ends at 2**63."""
    if isinstance(numbers, range):
        return (numbers[-1] - numbers[0]) // numbers.step + 1
    return len(numbers)


def numbers_of(written: Spread, place: str, *, is_whole: bool) -> NumberList:
    """Return all numbers of {from: ..., to: ...}. is_whole: for an argument that takes no others.

    With num, whole numbers are the nearest ones, each once. Raises JobError.
    """
    first, last, step = written.from_ or 0, written.to or 0, written.step or 1
    if written.num is not None:
        return _spaced(first, last, written.num, place, is_log=written.scale == "log", is_whole=is_whole)
    if written.scale == "log":
        raise JobError(f"{place} has scale: log, and no num", "say how many numbers, as num: 8")
    odd = [number for number in (first, last, step) if not float(number).is_integer()]
    if is_whole and odd:
        raise JobError(f"{place} has {odd[0]!r}, and takes whole numbers", "use whole numbers")
    if is_whole or all(isinstance(number, int) for number in (first, last, step)):
        return whole_range(int(first), int(last), int(step), place)
    return _stepped(first, last, step, place)


def _spaced(
    first: float, last: float, num: int, place: str, *, is_log: bool, is_whole: bool
) -> list[float] | list[int]:
    if num > MAX_VALUES:
        raise JobError(f"{place}.num is {num:,}, and {MAX_VALUES:,} are the limit", "use fewer")
    parts = [number / max(num - 1, 1) for number in range(num)]
    found = [number_between(first, last, part, is_log=is_log) for part in parts]
    return list(dict.fromkeys(map(round, found))) if is_whole else found


def number_between(first: float, last: float, part: float, *, is_log: bool) -> float:
    """Return the number at `part`, 0 to 1, of the way from first to last, to six digits."""
    if part in (0, 1):
        return float(last if part else first)
    number = first * (last / first) ** part if is_log else first + (last - first) * part
    return float(f"{number:.{_DIGITS}g}")


def _stepped(first: float, last: float, step: float, place: str) -> list[float]:
    """Return first, first + step, ... as decimals add up: 0.1 + 0.2 is 0.3."""
    start, stride = Decimal(str(first)), Decimal(str(step))
    num = int(abs(Decimal(str(last)) - start) / stride) + 1
    if num > MAX_VALUES:
        raise JobError(f"{place} has {num:,} numbers, and {MAX_VALUES:,} are the limit", "use a larger step")
    sign = 1 if last >= first else -1
    return [float(start + sign * stride * number) for number in range(num)]
