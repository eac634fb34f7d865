"""`sweep:` as a person writes it: the values of arguments, the sample, and the numbers of ranges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator as validator,
)
from pydantic_core import PydanticCustomError

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.strict_model import Strict

_One = str | int | float | bool | None
_Written = _One | list[_One | list[_One]]
SampleMethod = Literal["sobol", "random"]
MAX_VALUES = 1_000_000  # values of one argument, which are in memory unless they are a range of whole numbers
_DIGITS = 6  # of drawn numbers: no argument needs more, and machines may differ in the sixteenth
_SHORT = re.compile(r"\s*(-?\d{1,19})\s*-\s*(-?\d{1,19})\s*(?::\s*(\d{1,19})\s*)?")
MARKED_FILE = re.compile(r"@(.+\.txt|\S+)", re.IGNORECASE)  # `@prompts.txt`, as on the command line
_INT64 = range(-(2**63), 2**63)

NumberList = range | list[float] | list[int]


class Spread(Strict):
    """Values to sweep for one argument: a list, a range of numbers, or the lines of a text file."""

    values: list[_One | list[_One]] | None = Field(
        default=None, min_length=1, description="The values; `null` is the job's default."
    )
    weights: list[Annotated[float, Field(ge=0, le=1e9)]] | None = Field(
        default=None, description="How often a `sample` draws each value, e.g. [7, 3]."
    )
    from_: int | float | None = Field(default=None, alias="from", description="First number of a range.")
    to: int | float | None = Field(default=None, description="Last number, included if a step reaches it.")
    step: int | float | None = Field(
        default=None,
        gt=0,
        description="Distance between numbers. Default: 1; in a `sample`, any number is drawn.",
    )
    num: int | None = Field(default=None, ge=1, description="Number of values, instead of a step.")
    scale: Literal["linear", "log"] = Field(
        default="linear",
        description="log: each number is a multiple of the one before it; needs num, except in a `sample`.",
    )
    file: str | None = Field(
        default=None, min_length=1, description="Path or URL of a text file; each line is a value."
    )

    @property
    def is_range(self) -> bool:
        return self.from_ is not None

    @validator(mode="after")
    def _is_one_kind(self) -> Spread:
        has_ends = self.from_ is not None or self.to is not None
        if [self.values is None, self.file is None, not has_ends].count(False) != 1:
            raise _wrong("one of a list, {from: 1, to: 9}, and {file: prompts.txt}")
        if self.weights is not None and not (
            len(self.weights) == len(self.values or ()) and any(self.weights)
        ):
            raise _wrong("with as many weights as values, at least one of them above 0")
        if (self.from_ is None) != (self.to is None):
            raise _wrong("a range with both ends, e.g. {from: 1, to: 9}")
        if not self.is_range and (self.step or self.num or self.scale == "log"):
            raise _wrong("without step, num and scale, which belong to {from: ..., to: ...}")
        if self.step and self.num:
            raise _wrong("with step or num, not both")
        if max(map(abs, (self.from_ or 0, self.to or 0, self.step or 0))) >= 10**300:
            raise _wrong("a range of numbers that have fewer than 300 digits")
        if self.scale == "log" and (self.step or min(self.from_ or 0, self.to or 0) <= 0):
            raise _wrong("from and to above 0, with num in place of step, where scale is log")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, dump: SerializerFunctionWrapHandler) -> Any:
        """Return the shortest form that a job file may use."""
        values = {name: value for name, value in dump(self).items() if value not in (None, "linear")}
        if self.values is not None and self.weights is None:
            return values["values"]
        return {("from" if name == "from_" else name): value for name, value in values.items()}


def _wrong(should_be: str) -> PydanticCustomError:
    return PydanticCustomError("sweep", "{should_be}", {"should_be": should_be})


def _mapping(written: object) -> object:
    if isinstance(written, Mapping | Spread):
        return written
    if isinstance(written, str) and MARKED_FILE.fullmatch(written):
        return {"file": written[1:]}
    return {"values": written if isinstance(written, list) else [written]}


_Factor = Annotated[Spread, BeforeValidator(_mapping, json_schema_input_type=_Written | Spread)]


class Sample(Strict):
    """A random sample of combinations, instead of all."""

    num: int = Field(ge=1, le=1_000_000, description="Number of combinations to draw.")
    method: SampleMethod = Field(
        default="sobol",
        description="sobol: spread evenly over the values in `over`; random: independent draws.",
    )
    seed: int = Field(default=0, ge=0, description="Random seed; the same seed draws the same rows.")
    over: dict[str, _Factor] = Field(
        min_length=1,
        description="Values to draw from: any number in a range, e.g. {from: 1, to: 8}, or one of a list.",
    )


class Sweep(Strict):
    """Values for each argument; every combination is a row, for each row of the table.

    A name that is not an argument is a placeholder, which texts use as {name}.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Factor] = Field(init=False)

    sample: Sample | None = Field(
        default=None, description="Draw a random sample of combinations, instead of all."
    )
    wildcards: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of text files. `__name__` in a text is a line of name.txt.",
    )

    @property
    def factors(self) -> dict[str, Spread]:
        """Return the values that are crossed, without those of the sample."""
        return dict(self.__pydantic_extra__)

    @property
    def files(self) -> dict[str, str]:
        """Return the text files that it names, and the folder of wildcards, by key below `sweep`."""
        over = self.sample.over if self.sample else {}
        written_by_key = self.factors | {f"sample.over.{name}": written for name, written in over.items()}
        files = {f"{name}.file": written.file for name, written in written_by_key.items() if written.file}
        return files | ({"wildcards": self.wildcards} if self.wildcards else {})

    def __bool__(self) -> bool:
        return bool(self.factors or self.sample)

    @validator(mode="after")
    def _names_once(self) -> Sweep:
        for name in self.sample.over if self.sample else ():
            if name in self.factors:
                raise _wrong(f"a mapping with {name} once: by itself, or below sample.over")
        return self


def short_range(text: object, place: str) -> range | None:
    """Return the range for text like "0-63" or "8-64:8"; None for other text. Raises JobError."""
    match = _SHORT.fullmatch(text) if isinstance(text, str) else None
    return whole_range(int(match[1]), int(match[2]), int(match[3] or 1), place) if match else None


def whole_range(first: int, last: int, step: int, place: str) -> range:
    """Return the whole numbers from `first` to `last`, upwards or downwards."""
    if step < 1:
        raise JobError(f"{place}.step is {step}", "use 1 or more")
    if any(number not in _INT64 for number in (first, last, step)):
        raise JobError(f"{place} goes beyond 64 bits", "use smaller numbers")
    return range(first, last + 1, step) if first <= last else range(first, last - 1, -step)


def count(numbers: NumberList | list[Any]) -> int:
    """Return the number of values: len() of a range fails from 2**63 on."""
    if isinstance(numbers, range):
        return (numbers[-1] - numbers[0]) // numbers.step + 1
    return len(numbers)


def numbers_of(written: Spread, place: str, *, is_whole: bool) -> NumberList:
    """Return the numbers of {from: ..., to: ...}. is_whole: round them. Raises JobError."""
    first, last, step = written.from_ or 0, written.to or 0, written.step or 1
    if written.num is not None:
        if written.num > MAX_VALUES:
            raise JobError(f"{place}.num is {written.num:,}, but the limit is {MAX_VALUES:,}", "use fewer")
        most = max(written.num - 1, 1)
        if is_whole and written.scale != "log" and float(first).is_integer() and float(last).is_integer():
            low, way = int(first), int(last) - int(first)
            return list(dict.fromkeys(low + (2 * way * k + most) // (2 * most) for k in range(written.num)))
        parts = [number / most for number in range(written.num)]
        numbers = [number_between(first, last, part, is_log=written.scale == "log") for part in parts]
        return list(dict.fromkeys(map(round, numbers))) if is_whole else numbers
    if written.scale == "log":
        raise JobError(f"{place} has scale: log, but no num", "set the number of values, e.g. num: 8")
    odd = [number for number in (first, last, step) if not float(number).is_integer()]
    if is_whole and odd:
        raise JobError(f"{place} has {odd[0]!r}, but takes whole numbers", "use whole numbers")
    if is_whole or all(isinstance(number, int) for number in (first, last, step)):
        return whole_range(int(first), int(last), int(step), place)
    # first, first + step, ... in decimal arithmetic: 0.1 + 0.2 is 0.3
    start, stride = Decimal(str(first)), Decimal(str(step))
    num = int(abs(Decimal(str(last)) - start) / stride) + 1
    if num > MAX_VALUES:
        raise JobError(f"{place} has {num:,} numbers, but the limit is {MAX_VALUES:,}", "use a larger step")
    sign = 1 if last >= first else -1
    return [float(start + sign * stride * number) for number in range(num)]


def number_between(first: float, last: float, part: float, *, is_log: bool) -> float:
    """Return the number at `part` (0 to 1) of the way from first to last, with six digits."""
    if part in (0, 1):
        return float(last if part else first)
    number = first * (last / first) ** part if is_log else first + (last - first) * part
    return float(f"{number:.{_DIGITS}g}")
