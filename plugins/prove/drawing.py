"""Draw rows by a seal and a coin, and compute what the drawn rows prove about all rows."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from math import exp, lgamma

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
    totals = range(num_off, num_rows - (num_drawn - num_off) + 1)

    def is_refuted(total: int) -> bool:
        ways = (_log_ways(num_rows, num_drawn, total, off) for off in range(num_off + 1))
        return sum(map(exp, ways)) <= 1 - _CONFIDENCE

    return num_off + bisect_left(totals, True, key=is_refuted) - 1


def _log_ways(num_rows: int, num_drawn: int, total: int, off: int) -> float:
    """Return the logarithm of the probability of drawing `off` of the `total` rows that are off."""
    if off > total or num_drawn - off > num_rows - total:
        return float("-inf")
    return (
        _log_comb(total, off) + _log_comb(num_rows - total, num_drawn - off) - _log_comb(num_rows, num_drawn)
    )


def _log_comb(count: int, chosen: int) -> float:
    return lgamma(count + 1) - lgamma(chosen + 1) - lgamma(count - chosen + 1)
