"""The order of a renderer's rows and of fresh ones; no model, no row is rendered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from framefleet import Request
from framefleet.cluster.dispatch.lease import Paces, Row
from framefleet.cluster.dispatch.order import Longest, Ranked, TableOrder
from framefleet.pipeline.render.fused.batcher import RowTask
from framefleet.pipeline.render.row_queue import RenderRow, RowQueue
from framefleet.pipeline.render.row_seconds import RowSeconds, timed


def _queue(*row_ids: str) -> RowQueue:
    queue = RowQueue()
    for row_id in row_ids:
        queue.add(RenderRow(row_id, Request()))
    return queue


def _start(queue: RowQueue, capacity: int) -> list[str]:
    started = []
    while (row := queue.take(capacity)) is not None:
        queue.under_way[RowTask(lambda: None)] = row
        started.append(row.row_id)
    return started


def test_rows_start_in_order_while_there_is_room() -> None:
    queue = _queue("a", "b", "c")
    assert _start(queue, 2) == ["a", "b"]
    assert len(queue) == 3
    queue.under_way.clear()
    assert _start(queue, 2) == ["c"]


def test_a_row_that_does_not_fit_beside_others_runs_alone_once_they_have_ended() -> None:
    queue = _queue("a", "b", "c")
    _start(queue, 2)
    task, row = next(iter(queue.under_way.items()))
    del queue.under_way[task]
    queue.add_again(row, is_alone=True)
    assert _start(queue, 2) == [], "b is under way"
    queue.under_way.clear()
    assert _start(queue, 2) == ["a"], "and nothing beside it"
    queue.under_way.clear()
    assert _start(queue, 2) == ["c"]


def test_rows_that_begin_again_go_before_those_that_wait_and_forget_their_seconds() -> None:
    queue = _queue("a", "b", "c")
    _start(queue, 2)
    began = [row.started_at for row in queue.under_way.values()]
    for row in queue.under_way.values():
        row.seconds["decode_s"] = 1.0
    queue.put_back()
    assert _start(queue, 3) == ["a", "b", "c"]
    rows = list(queue.under_way.values())
    assert [row.started_at for row in rows[:2]] == began
    assert all(row.seconds == {} for row in rows)


def test_rows_of_a_kind_that_was_set_apart_run_alone_also_those_that_wait() -> None:
    apart: set[str] = set()
    queue = RowQueue(apart)
    for row_id, recipe in (("a", "good"), ("b", "bad"), ("c", "good"), ("d", "good")):
        queue.add(RenderRow(row_id, Request(recipe=recipe)))
    assert _start(queue, 2) == ["a", "b"]
    apart.add("bad")
    queue.put_back()
    assert _start(queue, 2) == ["b"], "and nothing beside it"
    queue.under_way.clear()
    assert _start(queue, 3) == ["a", "c", "d"]


def test_rows_that_are_under_way_together_was_batched() -> None:
    queue = _queue("a", "b", "c")
    first, second = (queue.take(2) for _ in range(2))
    assert first and second
    queue.start(RowTask(lambda: None), first)
    assert not first.was_batched
    queue.start(RowTask(lambda: None), second)
    assert first.was_batched and second.was_batched
    queue.put_back()
    again = queue.take(1)
    assert again and again.row_id == "a"
    assert not again.was_batched


def test_the_seconds_of_calls_are_those_of_the_row_at_work() -> None:
    seconds = RowSeconds()
    for at_work in (seconds, None, seconds):
        call = timed("encode_s", lambda now=at_work: now, "cpu")  # type: ignore[misc]
        assert call("vae", lambda x: x + 1, 1) == 2
    assert list(seconds) == ["encode_s"] and seconds["encode_s"] > 0


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
