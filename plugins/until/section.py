"""The section `until` of a job file. Light to import, since every job file is read with it."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from framefleet.api.sections import Section, as_list

_Text = Annotated[str, Field(min_length=1)]


class UntilSection(Section):
    """Render new seeds of each row until enough clips of each group pass a condition."""

    accepted: int = Field(ge=1)
    """Number of clips to accept per group: the first that pass, in the order of their seeds."""
    where: _Text
    """Condition in SQL on columns of records, e.g. "sharpness > 0.4 and not is_black". If it is null, the
    clip is neither accepted nor rejected."""
    at_most: int = Field(ge=1)
    """Maximum number of clips to render per group."""
    per: Annotated[list[str], BeforeValidator(as_list)] = Field(default_factory=list)
    """Columns, arguments or words of the sweep, e.g. [prompt]: each value is a group. Default: one group."""
    together: Annotated[list[str] | None, BeforeValidator(as_list)] = None
    """Columns, e.g. [camera]: rows of a group that differ only in these get the same seed, count as one clip,
    and are accepted together or not at all. Default: [camera] for LeRobot tables, else none."""
    share: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Shares of the accepted clips by the values of columns, e.g. {style: {photo: 0.5, anime: 0.5}}."""
    rate: float | None = Field(default=None, gt=0, le=1)
    """Share of clips expected to pass, for `plan` and the first rows. Default: measured."""

    @field_validator("at_most")
    @classmethod
    def _is_enough(cls, at_most: int, others: ValidationInfo) -> int:
        if at_most < others.data.get("accepted", 1):
            raise PydanticCustomError("at_most", "at least `until.accepted`")
        return at_most

    @field_validator("share")
    @classmethod
    def _adds_up(cls, share: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for shares in share.values():
            if min(shares.values(), default=-1) < 0 or not math.isclose(sum(shares.values()), 1):
                raise PydanticCustomError("share", "shares of 0 or more that add up to 1 for each column")
        return share

    def __str__(self) -> str:
        per = f" of each {' and '.join(self.per)}" * bool(self.per)
        per += f", by the shares of {' and '.join(self.share)}," * bool(self.share)
        return f"{self.accepted:,} accepted{per} where {self.where}, at most {self.at_most:,} rendered"
