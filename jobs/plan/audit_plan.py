"""From the rows that are left to how many of them audits will compare, and what is known then."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from framefleet.pipeline.render.audit.schedule import MAX_KINDS, Audit, Odds
from framefleet.pipeline.render.fused.batching import Batching


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlan:
    """What is expected if no row is a plain call; there is less of it to do the more are."""

    num_audits: float  # on average
    share: float  # of the rows that are to be rendered
    most_wrong: int  # of these rows, with 95 % confidence, if no audit finds one
    limit: float | None = (
        None  # the share of the models' time that audits may take; None: nothing limits them
    )


def plan_audits(
    audit: Audit, batching: Batching, shapes: Mapping[str, int], *, num_pending: int
) -> AuditPlan | None:
    """Return what audits there will be; None for none. shapes: all rows by shape, the most frequent first."""
    if not num_pending or not audit.is_on(batching.mode):
        return None
    odds, still = audit.odds(num_pending), num_pending / sum(shapes.values())
    counts = [round(count * still) for count in shapes.values()]
    counts = [*counts[:MAX_KINDS], sum(counts[MAX_KINDS:])]
    num_audits = min(float(num_pending), sum(odds.expected(count) for count in counts))
    num_passed = 0
    if audit.limit is not None:
        num_audits = min(num_audits, 1 + math.floor(audit.limit * num_pending))
        num_passed = _num_passed(odds, counts, audit.limit)
    offered = [round(count * (1 - num_passed / num_pending)) for count in counts]
    return AuditPlan(
        num_audits=num_audits,
        share=num_audits / num_pending,
        most_wrong=min(num_passed + odds.most_wrong(offered), num_pending),
        limit=audit.limit,
    )


def _num_passed(odds: Odds, counts: Sequence[int], share: float) -> int:
    """Return how many rows end before audits, which are frequent at first, take less than their share.

    Those are nearly all passed over. Each audit is taken to last as long as a row.
    """
    num_rows = sum(counts)

    def is_over(num_ended: int) -> bool:
        so_far = (round(count * num_ended / num_rows) for count in counts)
        return sum(odds.expected(count) for count in so_far) > share * num_ended

    low, high = 0, num_rows
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if is_over(middle) else (low, middle)
    return max(0, min(low, num_rows - 1))
