"""An order by a number that each row has: priorities, or the longest first."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from framefleet.cluster.dispatch.lease import Row


class Ranked:
    """The highest `Row.rank` first, of equal ones the oldest. Others of its shape share its lease."""

    def __init__(self) -> None:
        self._by_shape: dict[str, list[tuple[float, int, Row]]] = {}  # heaps, the first row on top
        self._numbers = count()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, row: Row) -> None:
        self._count += 1
        heapq.heappush(self._by_shape.setdefault(row.shape, []), (-row.rank, next(self._numbers), row))

    def next_shape(self, rendering: str | None, patience: int) -> str | None:
        return min(self._by_shape, key=lambda shape: self._by_shape[shape][0][:2], default=None)

    def take(self, shape: str, limit: int) -> list[Row]:
        heap = self._by_shape.get(shape, [])
        taken = [heapq.heappop(heap)[2] for _ in range(min(max(limit, 0), len(heap)))]
        self._count -= len(taken)
        if not heap:
            self._by_shape.pop(shape, None)
        return taken

    def regroup(self, reshaped: Callable[[list[Row]], list[Row]]) -> None:
        entries = sorted(entry[1:] for heap in self._by_shape.values() for entry in heap)
        self._by_shape.clear()
        self._count = 0
        for row in reshaped([row for _, row in entries]):
            self.add(row)
