"""What a caller or a job says about audits. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.render.fused.batching import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Of each kind of rows (model, recipe, shape) the first that had company, and then one in `every`, is
    rendered again by a plain call; 0: none."""

    every: int = 1000  # an audit takes one or two rows' time, so 0.1 to 0.2 % of it

    def is_on(self, mode: Mode) -> bool:
        """Whether there are any in this mode of batching: fast lets rows differ."""
        return self.every > 0 and mode == "exact"

    def __post_init__(self) -> None:
        if self.every < 0:
            raise JobError(f"audit every is {self.every}", "use 1 or more, or 0 for no audits")
