"""The section `draft` of a job file. Light to import, since every job file is read with it."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from framefleet.api.sections import Section, as_list
from framefleet.jobs.job.section import Arguments

_Text = Annotated[str, Field(min_length=1)]


class KeepSection(Section):
    """Drafts to render in full: the best ones for which `where` is true."""

    best: int | None = Field(default=None, ge=1)
    """Number of drafts to keep per group, by `by`. Default: all."""
    per: Annotated[list[str], BeforeValidator(as_list)] = Field(default_factory=list)
    """Columns of records, e.g. [prompt]: each value makes a group. Default: one group."""
    by: _Text | None = None
    """Score to rank by, highest first; -flicker means lowest first."""
    where: _Text | None = None
    """Condition in SQL on columns of records, e.g. "sharpness > 0.4"."""

    @model_validator(mode="after")
    def _chooses(self) -> Self:
        if (self.best is None) != (self.by is None):
            raise PydanticCustomError("keep", "given with both `best` and `by`, or with `where` only")
        if self.best is None and self.where is None:
            raise PydanticCustomError("keep", "given with `best` and `by`, or with `where`")
        return self

    @property
    def score(self) -> str | None:
        return self.by.removeprefix("-") if self.by else None

    def __str__(self) -> str:
        best = f"the best {self.best:,}" if self.best else "all"
        per = f" of each {' and '.join(self.per)}" * bool(self.best and self.per)
        by = f" by {self.by}" if self.by else ""
        return f"{best}{per}{by}" + (f" where {self.where}" if self.where else "")


class DraftSection(Section):
    """Rows are rendered cheaply first, and then the best of these drafts in full.

    All keys other than `keep` are arguments of the drafts, e.g. num_inference_steps, height and width.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: Arguments = Field(init=False)

    keep: KeepSection

    @property
    def row_arguments(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__)
