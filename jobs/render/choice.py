"""From records of drafts, with their scores, to those that are kept: the best of each group."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.outputs.parts.records import with_arguments
from framefleet.pipeline.outputs.query import records_where
from framefleet.pipeline.outputs.stores.store import Store

_READ = ("row_id", "path", "arguments")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Which are kept: those of which `where` is true, and of these `best` of each group, the highest first.

    per: columns, or arguments, whose values make a group. by: a score; with a minus before it the lowest
    first.
    """

    best: int | None = None
    per: tuple[str, ...] = ()
    by: str | None = None
    where: str | None = None

    @property
    def score(self) -> str | None:
        return self.by.removeprefix("-") if self.by else None

    def __str__(self) -> str:
        best = f"the best {self.best:,}" if self.best else "all"
        per = f" of each {' and '.join(self.per)}" * bool(self.best and self.per)
        by = f" by {self.by}" if self.by else ""
        return f"{best}{per}{by}" + (f" where {self.where}" if self.where else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One that is kept. path: of its clip. values: of clip steps, by column."""

    row_id: str
    path: str | None
    values: dict[str, Any]


@dataclass(slots=True)
class _Groups:
    """The best of each group so far, the worst of them on top."""

    keep: Keep
    heaps: dict[str, list[tuple[float, int, Draft]]] = field(default_factory=dict)

    def add(self, row: dict[str, Any], draft: Draft) -> None:
        told = with_arguments(row)
        group = canonical_json([str(told.get(name)) for name in self.keep.per])
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
    store: Store, keep: Keep, measured: list[str], is_wanted: Callable[[str], bool]
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


def check_keep(keep: Keep, measured: list[str]) -> None:
    """Raise JobError where drafts are to be ranked by what is not measured of them."""
    if keep.score is not None and keep.score not in measured:
        raise JobError(
            f"draft.keep.by is {keep.by!r}, and drafts have no such score",
            f"{did_you_mean(keep.score, measured)}; or add it to `scores:`",
        )
