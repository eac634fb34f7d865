"""What audits say of a job's rows, in words."""

from __future__ import annotations

import math

from framefleet.cluster.driver.progress import AuditFigures

VAGUE = 0.3  # of the rows: a bound above this says nothing, and reads as if these were wrong


def audit_line(audits: AuditFigures, num_rows: int) -> str:
    """Return how many rows were compared, and what that says of the others.

    num_rows: with a record, of which audits speak.
    """
    if not audits.num_equal and not audits.num_unaudited:
        return "no audits were needed: no row was batched" if num_rows else "no rows to audit"
    if not audits.num_equal:
        return f"none of {num_rows:,} rows has been rendered again to compare"
    said = f"{audits.num_equal:,} of {num_rows:,} rows were rendered again and compared: all equal"
    if bound := bound_text(audits.most_wrong, num_rows):
        return f"{said}; with 95 % confidence, {bound}"
    return f"{said} (`audit.at_most` compares more)"


def bound_text(most_wrong: int, num_rows: int) -> str:
    """Return how many rows differ at most; "" where the bound is too wide to say anything."""
    share = most_wrong / num_rows if num_rows else 0.0
    return "" if share > VAGUE else f"at most {most_wrong:,} of all rows ({share_text(share)}) differ"


def share_text(share: float) -> str:
    """Return a share in per cent, with two digits, rounded up: a bound stays one."""
    if share <= 0:
        return "0 %"
    digits = max(0, 1 - math.floor(math.log10(100 * share) + 1e-9))
    step = 10.0**-digits
    return f"{math.ceil(100 * share / step - 1e-9) * step:.{digits}f} %"
