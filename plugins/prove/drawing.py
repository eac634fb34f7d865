"""A seal and a coin in, the rows that they draw out; and what the drawn rows say of all."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from math import exp, lgamma

_CONFIDENCE = 0.95


def drawn_positions(seal: str, coin: str, *, num_rows: int, count: int) -> list[int]:
    """Return this many different positions, each as likely as any other: nobody can choose them.

    seal: of all records, before the coin was known. coin: any text that nobody could know or choose by then.
    """
    drawn: dict[int, None] = {}
    number = 0
    while len(drawn) < min(count, num_rows):
        lot = hashlib.sha256(f"framefleet {seal} {number} {coin}".encode()).digest()
        drawn[int.from_bytes(lot) % num_rows] = None  # 256 bits: no position is favoured
        number += 1
    return [*drawn]


def most_off(num_rows: int, *, num_drawn: int, num_off: int) -> int:
    """Return how many of all rows are off at most, with 95 % confidence, if num_off of the drawn are.

    The largest number with which so few, or fewer, are drawn in more than 5 % of drawings without
    replacement (the hypergeometric law; Clopper and Pearson's bound where few of many are drawn).
    """
    totals = range(num_off, num_rows - (num_drawn - num_off) + 1)

    def is_refuted(total: int) -> bool:
        ways = (_log_ways(num_rows, num_drawn, total, off) for off in range(num_off + 1))
        return sum(map(exp, ways)) <= 1 - _CONFIDENCE

    return num_off + bisect_left(totals, True, key=is_refuted) - 1


def _log_ways(num_rows: int, num_drawn: int, total: int, off: int) -> float:
    """Return the logarithm of the chance to draw `off` of the `total` rows that are off."""
    if off > total or num_drawn - off > num_rows - total:
        return float("-inf")
    return (
        _log_comb(total, off) + _log_comb(num_rows - total, num_drawn - off) - _log_comb(num_rows, num_drawn)
    )


def _log_comb(count: int, chosen: int) -> float:
    return lgamma(count + 1) - lgamma(chosen + 1) - lgamma(count - chosen + 1)
