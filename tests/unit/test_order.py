"""Orders of fresh rows: each takes rows of one shape at a time, loses none, and says which is first."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from framefleet.cluster.dispatch.lease import Paces, Row
from framefleet.cluster.dispatch.order import Longest, Ranked, TableOrder

ORDERS = (TableOrder, Ranked)
ROWS = st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from([0.0, 1.0, 2.5])), max_size=30)


def filled(order: Ranked, rows: list[tuple[str, float]]) -> Ranked:
    for number, (shape, rank) in enumerate(rows):
        order.add(Row(row_id=str(number), shape=shape, rank=0.0 if isinstance(order, TableOrder) else rank))
    return order


def emptied(order: Ranked, limit: int = 1) -> list[Row]:
    taken = []
    while (shape := order.next_shape(None, 0)) is not None:
        rows = order.take(shape, limit)
        assert 1 <= len(rows) <= limit
        assert {row.shape for row in rows} == {shape}
        taken += rows
    assert (len(order), order.take("x", 4)) == (0, [])
    return taken


@pytest.mark.parametrize("order", ORDERS)
@given(rows=ROWS, limit=st.integers(1, 5))
def test_each_row_comes_once(order: Callable[[], Ranked], rows: list[tuple[str, float]], limit: int) -> None:
    found = filled(order(), rows)
    assert len(found) == len(rows)
    assert sorted(int(row.row_id) for row in emptied(found, limit)) == list(range(len(rows)))


@given(rows=ROWS)
def test_the_order_of_the_table_is_the_tables(rows: list[tuple[str, float]]) -> None:
    taken = emptied(filled(TableOrder(), rows))
    assert [int(row.row_id) for row in taken] == list(range(len(rows)))


@given(rows=ROWS)
def test_the_highest_rank_is_first_and_of_equal_ones_the_oldest(rows: list[tuple[str, float]]) -> None:
    taken = emptied(filled(Ranked(), rows))
    assert taken == sorted(taken, key=lambda row: (-row.rank, int(row.row_id)))


def test_rows_of_the_same_shape_ride_along() -> None:
    order = filled(Ranked(), [("x", 1.0), ("y", 2.0), ("x", 3.0), ("x", 0.0)])
    assert [row.row_id for row in order.take("x", 2)] == ["2", "0"]
    assert order.next_shape("x", 9) == "y"


def test_the_longest_is_what_took_longest_so_far() -> None:
    paces = Paces()
    order = filled(Longest(paces), [("x", 3.0), ("y", 2.0), ("new", 2.5)])
    assert order.next_shape(None, 0) == "x"  # nothing is known: by the work in a row
    for shape, seconds in (("x", 10.0), ("y", 40.0)):
        paces.saw(Row(row_id="done", shape=shape, rank=2.0), seconds=seconds)
    assert [order.take(str(order.next_shape(None, 0)), 1)[0].shape for _ in range(3)] == ["y", "new", "x"]
