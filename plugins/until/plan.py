"""The plan of a job with `until`, for the rows that it is expected to ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from framefleet.api.errors import count_text
from framefleet.plugins.forecast.job_plan import JobPlan, PlanOptions


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class UntilPlan(JobPlan):
    """A plan for the average number of rows."""

    until: str  # the section, as text
    num_groups: int
    rate: float | None  # share of clips expected to pass; None: not known, assumed to be 1
    num_judged: int  # clips from which it was measured

    @property
    def to_render(self) -> str:
        return f"{'at least' if self.rate is None else 'about'} {self.counts.pending:,}"

    def parts(self, wanted: PlanOptions) -> Iterator[str | JobPlan]:
        yield f"until: {self.until}; groups: {self.num_groups:,}"
        if self.rate is None:
            yield "until.rate is not set, and no clip is judged yet, so this plan assumes that all pass"
        else:
            origin = f"{count_text(self.num_judged, 'clip')} so far" if self.num_judged else "until.rate"
            yield f"expected to pass: {self.rate:.1%} ({origin})"
        yield self
