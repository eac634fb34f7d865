"""Draw rows by a seal and a coin, and compute what the drawn rows prove about all rows."""

from __future__ import annotations

import hashlib
from bisect import bisect_left

_CONFIDENCE = 0.95


def drawn_positions(seal: str, coin: str, *, num_rows: int, count: int) -> list[int]:
    """Return this many different positions, all equally likely, so that nobody can choose them.

    seal: of all records, published before the coin was known. coin: any text that nobody could know or choose
    at that time.
    """
    drawn: dict[int, None] = {}
    number = 0
    while len(drawn) < min(count, num_rows):
        lot = hashlib.sha256(f"framefleet {seal} {number} {coin}".encode()).digest()
        drawn[int.from_bytes(lot) % num_rows] = None  # with 256 bits, the bias is negligible
        number += 1
    return [*drawn]


def most_off(num_rows: int, *, num_drawn: int, num_off: int) -> int:
    """Return the upper bound on rows that are off, with 95 % confidence, if num_off of the drawn ones are.

    The largest number for which drawing num_off or fewer, without replacement, has a probability above 5 %
    (hypergeometric distribution; like Clopper and Pearson's bound if few of many are drawn).
    """
    from scipy.stats import hypergeom  # takes half a second to import

    totals = range(num_off, num_rows - (num_drawn - num_off) + 1)
    is_refuted = bisect_left(
        totals,
        True,
        key=lambda total: hypergeom.cdf(num_off, num_rows, total, num_drawn) <= 1 - _CONFIDENCE,
    )
    return num_off + is_refuted - 1
