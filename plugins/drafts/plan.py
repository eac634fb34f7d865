"""What a job with drafts comes down to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from framefleet.jobs.plan.plan import JobPlan, PlanOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftedPlan(JobPlan):
    """The plan of the rows in full, with that of their drafts."""

    drafts: JobPlan  # of every row
    most_kept: int  # rows in full, at the most
    keep: str  # which

    @property
    def to_render(self) -> str:
        return f"at most {self.most_kept:,}"

    def parts(self, wanted: PlanOptions) -> Iterator[str | JobPlan]:
        yield "drafts, of every row:"
        yield self.drafts
        yield f"in full, at most {self.most_kept:,} of these rows: {self.keep}"
        yield self
        if wanted.probe:
            yield "only drafts are predicted: which rows are rendered in full is not known yet"
