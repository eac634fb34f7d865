"""Which kinds of rows exist and were compared, and which row says most if only one may be."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from framefleet.pipeline.render.audit.schedule import lot_of

MOST_KINDS = 1000  # that are counted: a table may have a shape for each row


@dataclass(frozen=True, slots=True, kw_only=True)
class KindOutlook:
    """A kind that still has rows to be rendered."""

    kind: str
    num_rows: int  # of the job
    size: int = 0  # of the largest forward of its rows so far, see `size_class`
    compared_size: int | None = None  # the same of rows that were compared; None: none was


def most_informative(kinds: Collection[KindOutlook]) -> str | None:
    """Return the kind to compare a row of next: the one with the most rows.

    Of equals, one that is batched, then one in forwards of a new size.
    """

    def rank(kind: KindOutlook) -> tuple[int, bool, bool]:
        is_new = kind.compared_size is None or kind.size > kind.compared_size
        return kind.num_rows, kind.size > 0, is_new

    return max(kinds, key=rank).kind if kinds else None


def size_class(batch_size: float) -> int:
    """Return 0 for forwards of one row, 1 for up to 2 rows, 2 for up to 4, 3 for up to 8, ..."""
    size = 0
    while 2**size < batch_size - 1e-6:  # it is a mean, of floats
        size += 1
    return size


class AuditedKinds:
    """The sizes of forwards that rows of each kind had, and those at which they were compared."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._compared: dict[str, int] = {}

    def saw(self, kind: str, batch_size: float) -> bool:
        """Note a row that may differ; tell whether no row in forwards as large was compared or seen."""
        size = size_class(batch_size)
        before = self._sizes.get(kind, -1)
        if before >= 0 or len(self._sizes) < MOST_KINDS:
            self._sizes[kind] = max(size, before)
        return kind in self._compared and size > max(before, self._compared[kind])

    def compared(self, kind: str, batch_size: float) -> None:
        """Note a row that was compared."""
        if kind in self._compared or len(self._compared) < MOST_KINDS:
            self._compared[kind] = max(size_class(batch_size), self._compared.get(kind, 0))

    def outlook(self, kind: str, num_rows: int) -> KindOutlook:
        """Return what is known of a kind. num_rows: of the job."""
        size, compared_size = self._sizes.get(kind, 0), self._compared.get(kind)
        return KindOutlook(kind=kind, num_rows=num_rows, size=size, compared_size=compared_size)

    @property
    def num_kinds(self) -> int:
        """Kinds that have rows that may differ; at most `MOST_KINDS`."""
        return min(len(self._sizes | self._compared), MOST_KINDS)

    @property
    def num_compared(self) -> int:
        """Of these, the kinds of which a row was compared."""
        return len(self._compared)


class OneAudit:
    """Chooses the one row of a small job that is compared: any of the most informative kind, by its lot."""

    def __init__(self, kinds: AuditedKinds) -> None:
        self._kinds = kinds
        self._lots: dict[str, dict[str, float]] = {}  # of rows to come, by kind and row_id
        self._num_rows: dict[str, int] = {}  # by kind

    def add(self, row_id: str, kind: str) -> None:
        """Note a row that is still to come."""
        self._lots.setdefault(kind, {})[row_id] = lot_of(row_id)
        self._num_rows[kind] = self._num_rows.get(kind, 0) + 1

    def is_next(self, row_id: str, kind: str) -> bool:
        """Tell whether a row that is leased now is the one to audit, of all that were to come."""
        lots = {kind: lots for kind, lots in self._lots.items() if lots}
        informative = most_informative([self._kinds.outlook(kind, self._num_rows[kind]) for kind in lots])
        is_next = kind == informative and row_id == min(lots[kind], key=lots[kind].__getitem__)
        self._lots.get(kind, {}).pop(row_id, None)
        return is_next
