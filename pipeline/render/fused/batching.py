"""What a caller or a job says about rows that share forwards. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.render.fused.sizes import MIN_GAIN

Mode = Literal["exact", "fast"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How rows share forwards.

    mode: "exact" changes no bit of any row; "fast" lets rows round differently in a batch.
    max_rows: at most this many rows in one forward.
    min_gain: see Sizes; 0 uses every size, whether or not it was measured to pay.
    remember: what was found of sizes is kept beyond the process; see docs/exactness.md.
    """

    mode: Mode = "exact"
    max_rows: int = 8
    min_gain: float = MIN_GAIN
    remember: bool = True

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise JobError(f"batching mode is {self.mode!r}", f"use one of {', '.join(get_args(Mode))}")
        if self.max_rows < 1:
            raise JobError(f"batching max_rows is {self.max_rows}", "use 1 or more")
