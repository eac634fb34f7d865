"""From a job's rows by shape to how many of them will be audited, and what that will say. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from framefleet.pipeline.render.audit.schedule import MAX_KINDS
from framefleet.pipeline.render.audit.settings import Audit
from framefleet.pipeline.render.fused.batching import Batching


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlan:
    """What is expected if all rows are batched; there is less of it to do the fewer are.

    num_audits: on average. share: of the rows that are to be rendered. most_wrong: of these rows, with 95 %
    confidence, if no audit finds one.
    """

    num_audits: float
    share: float
    most_wrong: int


def plan_audits(
    audit: Audit, batching: Batching, shapes: Mapping[str, int], *, num_pending: int
) -> AuditPlan | None:
    """Return what audits there will be; None for none. shapes: all rows by shape, the most frequent first."""
    if not num_pending or batching.max_rows == 1 or not audit.is_on(batching.mode):
        return None
    odds, still = audit.odds(num_pending), num_pending / sum(shapes.values())
    counts = [round(count * still) for count in shapes.values()]
    counts = [*counts[:MAX_KINDS], sum(counts[MAX_KINDS:])]
    num_audits = min(float(num_pending), sum(odds.expected(count) for count in counts))
    return AuditPlan(
        num_audits=num_audits,
        share=num_audits / num_pending,
        most_wrong=min(odds.most_wrong(counts), num_pending),
    )
