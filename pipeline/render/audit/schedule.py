"""Which rows are audited. Pure: counts rows and knows no clock, so that it says the same each time."""

from __future__ import annotations

# Kinds that are counted each for itself; further ones together. Where every row has a shape of its own, the
# work would else be doubled.
MAX_KINDS = 64
_OTHERS = ""


class AuditSchedule:
    """The first row of each kind, and then one in `every`; 0: none."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._since: dict[str, int] = {}  # rows since the last one that was due

    def is_due(self, kind: str) -> bool:
        """Count a row; tell whether it is to be audited."""
        if not self._every:
            return False
        counted = kind if kind in self._since or len(self._since) < MAX_KINDS else _OTHERS
        since = self._since.get(counted, self._every) + 1
        is_due = since >= self._every
        self._since[counted] = 0 if is_due else since
        return is_due
