"""From records of drafts, with their scores, to those that are kept: the best of each group."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs.parts.records import with_arguments
from framefleet.pipeline.outputs.query import records_where
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.plugins.drafts.section import KeepSection

_READ = ("row_id", "path", "arguments")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A draft that is rendered in full."""

    row_id: str
    path: str | None  # of its clip
    values: dict[str, Any]  # of clip steps, by column


@dataclass(slots=True)
class _Groups:
    """The best of each group so far, the worst of them on top."""

    keep: KeepSection
    heaps: dict[str, list[tuple[float, int, Draft]]] = field(default_factory=dict)

    def add(self, row: dict[str, Any], draft: Draft) -> None:
        columns = with_arguments(row)
        group = canonical_json([str(columns.get(name)) for name in self.keep.per])
        # Equal scores: the smaller row_id, so that every run keeps the same.
        entry = (self._rank(draft.values), -int(draft.row_id, 16), draft)
        heap = self.heaps.setdefault(group, [])
        if self.keep.best is None or len(heap) < self.keep.best:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)

    def _rank(self, values: dict[str, Any]) -> float:
        score = values.get(self.keep.score) if self.keep.score else None
        if not isinstance(score, int | float) or score != score:
            return float("-inf")  # a draft without the score comes after all others
        return -float(score) if self.keep.by != self.keep.score else float(score)


def kept_drafts(
    store: Store, keep: KeepSection, measured: list[str], is_wanted: Callable[[str], bool]
) -> dict[str, Draft]:
    """Return what is kept of an output of drafts, by row_id.

    measured: columns to return. is_wanted: tells drafts of the table from those that earlier tables left.
    Raises JobError for a column or a condition that is none.
    """
    groups = _Groups(keep)
    for table in records_where(store, [*_READ, *measured, *keep.per], keep.where):
        for row in table.to_pylist():
            if is_wanted(row["row_id"]):
                values = {name: row.get(name) for name in measured}
                groups.add(row, Draft(row_id=row["row_id"], path=row["path"], values=values))
    return {draft.row_id: draft for heap in groups.heaps.values() for _, _, draft in heap}
