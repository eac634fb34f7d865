"""`sweep:` as a person writes it: what each argument goes through, and what is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from pydantic import model_validator as validator
from pydantic_core import PydanticCustomError

from framefleet.pipeline.guards.strict_model import Strict

_One = str | int | float | bool | None
_Written = _One | list[_One | list[_One]]
SampleMethod = Literal["sobol", "random"]


class Spread(Strict):
    """What one argument goes through: values, a range of numbers, or the lines of a text file."""

    values: list[_One | list[_One]] | None = Field(
        default=None, min_length=1, description="Each of them; `null` is the job's default."
    )
    from_: int | float | None = Field(default=None, alias="from", description="The first number of a range.")
    to: int | float | None = Field(default=None, description="Its last, included where a step meets it.")
    step: int | float | None = Field(default=None, gt=0, description="Between two numbers; unset: 1.")
    num: int | None = Field(default=None, ge=1, description="How many numbers, in place of a step.")
    scale: Literal["linear", "log"] = Field(
        default="linear", description="log: each number is a multiple of the one before it; needs num."
    )
    file: str | None = Field(
        default=None, min_length=1, description="A text file, path or URL: each of its lines."
    )

    @property
    def is_range(self) -> bool:
        return self.from_ is not None

    @validator(mode="after")
    def _is_one_kind(self) -> Spread:
        has_ends = self.from_ is not None or self.to is not None
        if [self.values is None, self.file is None, not has_ends].count(False) != 1:
            raise _wrong("one of a list, {from: 1, to: 9}, and {file: prompts.txt}")
        if (self.from_ is None) != (self.to is None):
            raise _wrong("a range with both ends, as {from: 1, to: 9}")
        if not self.is_range and (self.step or self.num or self.scale == "log"):
            raise _wrong("without step, num and scale, which are of {from: ..., to: ...}")
        if self.step and self.num:
            raise _wrong("with step or num, not both")
        if self.scale == "log" and (self.step or min(self.from_ or 0, self.to or 0) <= 0):
            raise _wrong("from and to above 0, with num in place of step, where scale is log")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, dump: SerializerFunctionWrapHandler) -> Any:
        """Return it as short as a job file says it."""
        said = {name: value for name, value in dump(self).items() if value not in (None, "linear")}
        if self.values is not None:
            return said["values"]
        return {("from" if name == "from_" else name): value for name, value in said.items()}


def _wrong(should_be: str) -> PydanticCustomError:
    return PydanticCustomError("sweep", "{should_be}", {"should_be": should_be})


def _mapping(written: object) -> object:
    if isinstance(written, Mapping | Spread):
        return written
    return {"values": written if isinstance(written, list) else [written]}


_Factor = Annotated[Spread, BeforeValidator(_mapping, json_schema_input_type=_Written | Spread)]


class Sample(Strict):
    """Combinations that are drawn, in place of all."""

    num: int = Field(ge=1, le=1_000_000, description="How many combinations are drawn.")
    method: SampleMethod = Field(
        default="sobol",
        description="sobol: spread evenly over what is drawn from; random: by chance.",
    )
    seed: int = Field(default=0, ge=0, description="Of the draws: the same seed, the same rows.")
    over: dict[str, _Factor] = Field(
        min_length=1,
        description="What is drawn from: any number between those of {from: 1, to: 8}, one value of a list.",
    )


class Sweep(Strict):
    """Arguments, each with what it goes through: every combination is a row, of each row of the table.

    A name that is not an argument is a word, which texts use as {name}.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Factor] = Field(init=False)

    sample: Sample | None = Field(default=None, description="Combinations that are drawn, in place of all.")

    @property
    def factors(self) -> dict[str, Spread]:
        """Return what is crossed, without what is drawn."""
        return dict(self.__pydantic_extra__)

    @property
    def files(self) -> dict[str, str]:
        """Return the text files that it names, by their keys below `sweep`."""
        over = self.sample.over if self.sample else {}
        named = self.factors | {f"sample.over.{name}": written for name, written in over.items()}
        return {f"{name}.file": written.file for name, written in named.items() if written.file}

    def __bool__(self) -> bool:
        return bool(self.factors or self.sample)

    @validator(mode="after")
    def _names_once(self) -> Sweep:
        for name in self.sample.over if self.sample else ():
            if name in self.factors:
                raise _wrong(f"a mapping with {name} once: by itself, or below sample.over")
        return self
