"""What audits say of a job's rows, in words."""

from __future__ import annotations

import math

from framefleet.cluster.driver.progress import AuditFigures

_ASKED = 0.1  # the share of rows that is proposed where audits say less
_VAGUE = 0.5  # of the rows: to know that no more than these are wrong helps nobody


def audit_line(audits: AuditFigures, num_rows: int) -> str:
    """Return how many rows are wrong at most. num_rows: with a record, of which audits speak."""
    if not audits.num_equal and not audits.num_unaudited:
        return "no audits were needed: no row was batched" if num_rows else "no rows to audit"
    share = audits.most_wrong / num_rows if num_rows else 0.0
    said = (
        f"{audits.num_equal:,} audits, none wrong: at most {audits.most_wrong:,} of {num_rows:,} rows "
        f"({share_text(share)}) are wrong, at 95 % confidence"
    )
    return f"{said}; `audit.at_most: {_ASKED}` audits more" if share > _VAGUE else said


def share_text(share: float) -> str:
    """Return a share in per cent, with two digits, rounded up: a bound stays one."""
    if share <= 0:
        return "0 %"
    digits = max(0, 1 - math.floor(math.log10(100 * share) + 1e-9))
    step = 10.0**-digits
    return f"{math.ceil(100 * share / step - 1e-9) * step:.{digits}f} %"
