"""Which LoRAs the rows of the running code use, and with which weights.

A context variable, because each greenlet has its own context: around a row's recipe, it has the row's
adapters; around a forward of many rows, it has the adapters of all of them.
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
    """The adapters of one row: those it asked for, and how its own code changed them since."""

    __slots__ = ("asked", "first", "in_force", "layers")

    def __init__(self, asked: Adapters = ()) -> None:
        # in_force: the same until a call or a recipe changes it; then equal only if all layers are equal.
        self.asked = self.in_force = asked
        self.layers: Mapping[str, Any] | None = None  # the state of each LoRA layer for it, once known
        self.first: Mapping[str, Any] | None = None  # the same when the row began


_rows: ContextVar[tuple[RowAdapters, ...]] = ContextVar("rows", default=())


def working_rows() -> tuple[RowAdapters, ...]:
    """Return the adapters of each row that the running code works on; () outside of rows."""
    return _rows.get()


@contextmanager
def working_on(rows: Iterable[RowAdapters]) -> Iterator[None]:
    """Note that the block works on these rows, in the order of every batch."""
    token = _rows.set(tuple(rows))
    try:
        yield
    finally:
        _rows.reset(token)


def of_one_row() -> RowAdapters:
    """Return the adapters of the one row that the running code works on."""
    rows = working_rows()
    return rows[0] if len(rows) == 1 else RowAdapters()
