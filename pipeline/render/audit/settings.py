"""What a caller or a job says about audits. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.render.audit.schedule import Odds, odds_for, young_for
from framefleet.pipeline.render.fused.batching import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Batched rows, chosen at random, are rendered again by plain calls, and compared.

    every: each row is chosen with a probability of 1/every at least, the first of its kind (recipe, second
    models, shape) more often; 0: no audits. at_most: more rows are chosen where that is needed to say, if all
    are equal, that at most this share of all rows is wrong, with 95 % confidence.
    """

    every: int = 1000  # an audit takes one or two rows' time, so 0.1 to 0.2 % of it
    at_most: float | None = None

    def is_on(self, mode: Mode) -> bool:
        """Whether there are any in this mode of batching: fast lets rows differ."""
        return self.every > 0 and mode == "exact"

    def odds(self, num_rows: int | None = None) -> Odds:
        """Return the odds by which rows are chosen. num_rows: of the job; None: nobody knows how many."""
        if self.at_most is None:
            return Odds(lowest=1 / self.every)
        if num_rows is None:
            return Odds(lowest=1 / self.every, young=young_for(self.at_most))
        return Odds(lowest=max(1 / self.every, odds_for(self.at_most, num_rows)))

    def __post_init__(self) -> None:
        if self.every < 0:
            raise JobError(f"audit every is {self.every}", "use 1 or more, or 0 for no audits")
        if self.at_most is None:
            return
        if not 0 < self.at_most <= 1:
            raise JobError(
                f"audit at_most is {self.at_most:g}", "use a share of rows, above 0 and up to 1, e.g. 0.01"
            )
        if not self.every:
            raise JobError(
                "audit at_most is set, and audit every is 0, which is no audits",
                "leave one of the two out",
            )
