"""Which LoRAs the rows of the running code use, and how strongly: set around it, read by what depends on it.

A context variable, because each greenlet has a context of its own: a row's adapters are set once, around
its recipe, and found by its text encoders and by calls that are not parked; around a forward of many rows
those of all of them are set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Adapters = tuple[tuple[str, float], ...]  # (name in the model, weight) in the order in which they are added

_rows: ContextVar[tuple[Adapters, ...]] = ContextVar("rows", default=())


def working_rows() -> tuple[Adapters, ...]:
    """Return the adapters of each row that the running code works on; () outside of any row."""
    return _rows.get()


@contextmanager
def working_on(rows: Iterable[Adapters]) -> Iterator[None]:
    """Say that the code in the block works on these rows, in this order along every batch."""
    token = _rows.set(tuple(rows))
    try:
        yield
    finally:
        _rows.reset(token)


def of_one_row() -> Adapters:
    """Return the adapters of the one row that the running code works on."""
    rows = working_rows()
    return rows[0] if len(rows) == 1 else ()
