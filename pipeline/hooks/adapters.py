"""Which LoRAs the rows of the running code use, and how strongly: set around it, read by what depends on it.

A context variable, because each greenlet has a context of its own: a row's adapters are set once, around its
recipe; around a forward of many rows those of all of them are set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Adapters = tuple[tuple[str, float], ...]  # (name in the model, weight) in the order in which they are added


class AdaptersRescaled(Exception):
    """A forward of several rows changes the weights of their LoRAs, so each row has to run on its own."""


class RowAdapters:
    """The adapters of one row: what it asked for, and what its own code has made of that since."""

    __slots__ = ("asked", "first", "in_force", "layers")

    def __init__(self, asked: Adapters = ()) -> None:
        # in_force: the same until a call or a recipe changed it; then equal only where all layers are.
        self.asked = self.in_force = asked
        self.layers: Mapping[str, Any] | None = None  # what each LoRA layer holds for it, once that is known
        self.first: Mapping[str, Any] | None = None  # what it held when the row began


_rows: ContextVar[tuple[RowAdapters, ...]] = ContextVar("rows", default=())


def working_rows() -> tuple[RowAdapters, ...]:
    """Return the adapters of each row that the running code works on; () outside of any row."""
    return _rows.get()


@contextmanager
def working_on(rows: Iterable[RowAdapters]) -> Iterator[None]:
    """Say that the code in the block works on these rows, in this order along every batch."""
    token = _rows.set(tuple(rows))
    try:
        yield
    finally:
        _rows.reset(token)


def of_one_row() -> RowAdapters:
    """Return the adapters of the one row that the running code works on."""
    rows = working_rows()
    return rows[0] if len(rows) == 1 else RowAdapters()
