"""Rows wait here, are under way, and leave; those for which memory ran out beside others run alone, and so do
those of kinds that an audit set apart."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.render.audit.audited import kind_of
from framefleet.pipeline.render.fused.batcher import RowTask
from framefleet.pipeline.request import Request


@dataclass(slots=True, eq=False)
class RenderRow:
    """A request on its way to a clip. seconds: spent on it, by what. pipe: its own, once it is under way.

    draws: what it draws from global generators. had_company: other rows were under way beside it.
    checkpoint: of another process, from which it is to go on; earlier: the seconds that it took there.
    compute_s: its share of the model's time here, all beginnings included; worked_s: see `Charges`.
    """

    row_id: str
    request: Request
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: dict[str, float] = field(default_factory=dict)
    is_alone: bool = False
    pipe: Any = None
    draws: GlobalDraws = field(default_factory=GlobalDraws)
    had_company: bool = False
    checkpoint: bytes | None = None
    earlier: Mapping[str, float] = field(default_factory=dict)
    compute_s: float = 0.0
    worked_s: float = 0.0

    @property
    def kind(self) -> str:
        """What an audit of it speaks for."""
        return kind_of(self.request)


class RowQueue:
    """All rows of a renderer. under_way: by the task that renders each."""

    def __init__(self, apart: Set[str] = frozenset()) -> None:
        """apart: kinds whose rows run alone; may grow."""
        self._apart = apart
        self.under_way: dict[RowTask, RenderRow] = {}
        self._waiting: deque[RenderRow] = deque()
        self._alone: deque[RenderRow] = deque()

    def __len__(self) -> int:
        return len(self.under_way) + len(self._waiting) + len(self._alone)

    @property
    def waiting(self) -> Iterator[RenderRow]:
        """Yield the rows that were not begun."""
        yield from self._alone
        yield from self._waiting

    def add(self, row: RenderRow) -> None:
        row.is_alone = row.is_alone or row.kind in self._apart
        (self._alone if row.is_alone else self._waiting).append(row)

    def start(self, task: RowTask, row: RenderRow) -> None:
        """Note that a row that was taken is under way."""
        for other in self.under_way.values():
            row.had_company = other.had_company = True
        self.under_way[task] = row

    def add_alone(self, row: RenderRow) -> None:
        """Take back a row that does not fit beside others."""
        row.is_alone, row.had_company = True, False
        self._alone.append(row)

    def add_again(self, row: RenderRow) -> None:
        """Take back a row that is to start from its beginning."""
        self.add(_from_its_beginning(row))

    def take(self, capacity: int) -> RenderRow | None:
        """Return the row that starts next; None while there is none, or no room for it."""
        if self._alone and not self.under_way:
            return self._alone.popleft()
        if self._alone or any(row.is_alone for row in self.under_way.values()):
            return None
        return self._waiting.popleft() if self._waiting and len(self.under_way) < capacity else None

    def put_back(self) -> None:
        """Have the rows under way start again, before all that wait; and each alone that has to be by now."""
        again = [*map(_from_its_beginning, self.under_way.values()), *self._waiting]
        self.under_way.clear()
        self._waiting.clear()
        for row in again:
            self.add(row)

    def clear(self) -> None:
        self.under_way.clear()
        self._waiting.clear()
        self._alone.clear()


def _from_its_beginning(row: RenderRow) -> RenderRow:
    return replace(
        row,
        seconds={},
        pipe=None,
        draws=GlobalDraws(),
        had_company=False,
        checkpoint=None,
        earlier={},
        worked_s=0.0,
        compute_s=row.compute_s + row.earlier.get("compute_s", 0.0),
    )
