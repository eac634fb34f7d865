"""Which rows are audited. Pure: it goes by row_ids and counts, so that it picks the same rows each time."""

from __future__ import annotations

import hashlib
from collections import Counter

from framefleet.pipeline.render.audit.error_bound import Odds

# Kinds that are counted each for itself; further ones together. If every row has a shape of its own, the
# work would be doubled otherwise.
MAX_KINDS = 64
_OTHERS = ""


class AuditSchedule:
    """Picks rows at random, more often while a kind is young, each with at least the lowest of the odds.

    odds: None: no row is audited.
    """

    def __init__(self, odds: Odds | None) -> None:
        self._odds = odds
        self._rows: Counter[str] = Counter()
        self._owed: Counter[str] = Counter()
        self._settled: set[str] = set()
        self._blind: set[str] = set()

    def is_due(self, kind: str, row_id: str) -> bool:
        """Count a row; tell whether it is to be audited."""
        if self._odds is None or kind in self._settled:
            return False
        counted = self._counted(kind)
        self._rows[counted] += 1
        return lot_of(row_id) < self._odds.of(self._rows[counted])

    def owe(self, kind: str) -> None:
        """A row that was due could not be audited, e.g. as it was never batched: another one is."""
        self._owed[self._counted(kind)] += 1

    def pays(self, kind: str) -> bool:
        """Tell whether a row is due in place of another, once."""
        counted = self._counted(kind)
        is_owed = self._owed[counted] > 0 and kind not in self._settled
        self._owed[counted] -= is_owed
        return is_owed

    def settle(self, kind: str) -> None:
        """Rows of this kind are plain calls now, or cannot be judged: none is due, none is spoken of."""
        self._settled.add(kind)

    def is_settled(self, kind: str) -> bool:
        return kind in self._settled

    def miss(self, kind: str) -> None:
        """A batched row was due and was not compared: nothing is known of its kind."""
        self._blind.add(self._counted(kind))

    def most_wrong(self, *, num_differing: int) -> int:
        """Return how many of the counted rows are wrong at most, see `Odds.most_wrong`."""
        if self._odds is None:
            return 0
        rows = {kind: count for kind, count in self._rows.items() if kind not in self._settled}
        unknown = sum(count for kind, count in rows.items() if kind in self._blind)
        known = [count for kind, count in rows.items() if kind not in self._blind]
        return unknown + self._odds.most_wrong(known, num_differing=num_differing)

    def _counted(self, kind: str) -> str:
        return kind if kind in self._rows or len(self._rows) < MAX_KINDS else _OTHERS


def lot_of(row_id: str) -> float:
    """Return the number from 0 to 1 that a row drew: the same in every run, whatever the row is."""
    return int.from_bytes(hashlib.sha256(f"audit {row_id}".encode()).digest()[:8]) / 2**64
