"""Choose the rows to compare, by lots that nobody knew while the rows were rendered.

A row is compared with a probability of `share`; in addition, so is the row with the lowest lot of each kind.
Those additional rows say nothing about others: the bound (`Odds.most_off`) uses only rows with equal odds.
"""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass, field

from framefleet.api.outputs import Store
from framefleet.pipeline.render.audit.schedule import MAX_KINDS, Odds, lot_of

_OTHERS = "others"  # all kinds beyond the first ones, since each row may have another shape
_FILE, _NUM_BYTES = "salt", 16


def kept_salt(folder: Store) -> str:
    """Return the salt for an audit's lots, a random number from its first run."""
    try:
        return folder.read(_FILE, _NUM_BYTES).hex()
    except FileNotFoundError:
        salt = secrets.token_bytes(_NUM_BYTES)
        folder.write(_FILE, salt)
        return salt.hex()


@dataclass(slots=True, kw_only=True)
class Lots:
    """Chooses rows. Add all rows before asking for any."""

    salt: str
    share: float  # above 0, up to 1
    num_rows: Counter[str] = field(default_factory=Counter)  # by kind
    _lowest: dict[str, float] = field(default_factory=dict)  # lot of each kind

    def add(self, row_id: str, kind: str) -> None:
        kind = self.counted(kind)
        self._lowest[kind] = min(self._lot(row_id), self._lowest.get(kind, 1.0))
        self.num_rows[kind] += 1

    @property
    def num_chosen(self) -> int:
        """Approximate number of rows to compare."""
        return max(len(self.num_rows), round(self.share * self.num_rows.total()))

    def has(self, row_id: str, kind: str) -> bool:
        return self.is_by_odds(row_id) or self._lot(row_id) == self._lowest[self.counted(kind)]

    def is_by_odds(self, row_id: str) -> bool:
        """Whether it is chosen by `share`, independent of its kind."""
        return self._lot(row_id) < self.share

    def counted(self, kind: str) -> str:
        is_new = kind not in self.num_rows and len(self.num_rows) >= MAX_KINDS
        return _OTHERS if is_new else kind

    def most_off(self, num_rows: int, *, num_off_by_odds: int, num_off: int, num_fine: int) -> int:
        """Return the upper bound on these rows that are off, with 95 % confidence.

        num_off, num_fine: of all compared rows. num_off_by_odds: of those chosen by `is_by_odds`.
        """
        by_odds = Odds(lowest=self.share).most_off(num_rows, num_off=num_off_by_odds)
        return max(num_off, min(by_odds, num_rows - num_fine))

    def _lot(self, row_id: str) -> float:
        return lot_of(f"{self.salt} {row_id}")
