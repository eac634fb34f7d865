"""The index of a table's rows on disk."""

from __future__ import annotations

import hashlib
import tracemalloc
from contextlib import closing

import numpy as np
import pytest

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.rows.identity import LaneKey
from framefleet.pipeline.rows.tables.index import MAX_LANES, RowCounts, RowIndex
from framefleet.pipeline.rows.tables.row_ids import as_positions, to_ids


def name(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()[:32]


@pytest.fixture
def index() -> RowIndex:
    """Positions 0 to 5 hold a b a c b d."""
    index = RowIndex()
    index.add([(position, name(word)) for position, word in enumerate("aba")])
    index.add([(position, name(word)) for position, word in enumerate("cbd", start=3)])
    return index


def test_pending_rows_come_in_table_order_at_their_first_position_window_by_window(index: RowIndex) -> None:
    assert index.counts() == RowCounts(rows=6, distinct=4, duplicates=2, done=0, pending=4)
    assert [index.positions(name("b"), 1), index.positions(name("c"), 3)] == [[1, 4], [3]]
    windows = [[(0, name("a")), (1, name("b"))], [(3, name("c"))], [(5, name("d"))]]
    assert [index.pending_in(first, 2) for first in (0, 2, 4)] == windows
    assert index.pending_in(0, 10) == [row for window in windows for row in window]


def test_a_done_row_is_done_at_all_its_positions(index: RowIndex) -> None:
    assert index.mark_done(to_ids([name("a"), name("b")])) == 2
    for again in ([name("a"), name("elsewhere")], []):
        assert index.mark_done(to_ids(again)) == 0
    assert index.pending_in(0, 10) == [(3, name("c")), (5, name("d"))]
    assert index.counts() == RowCounts(rows=6, distinct=4, duplicates=2, done=2, pending=2)


def test_rows_that_are_left_out_are_counted_and_found(index: RowIndex) -> None:
    index.leave_out([])
    index.leave_out([6, 9])
    assert (index.num_left_out, index.left_out_in(0, 9), index.left_out_in(9, 1)) == (2, {6}, {9})
    assert index.counts().rows == 6
    # What was rendered there before is none of the table.
    assert index.mark_done(to_ids([name("a"), name("e")]), as_positions([0, 6])) == 1
    assert index.num_foreign == 1


def test_rows_may_be_added_after_asking(index: RowIndex) -> None:
    index.counts()
    index.add([(6, name("d")), (7, name("e"))])
    assert index.counts() == RowCounts(rows=8, distinct=5, duplicates=3, done=0, pending=5)
    assert index.positions(name("d"), 5) == [5, 6]


def test_an_empty_index_has_nothing_pending_and_a_closed_one_is_gone() -> None:
    with closing(RowIndex()) as index:
        assert index.counts() == RowCounts(rows=0, distinct=0, duplicates=0, done=0, pending=0)
        assert index.pending_in(0, 10) == []
        index.add([(0, name("a"))])
    with pytest.raises(ValueError, match="closed"):
        index.counts()


def test_only_rows_that_are_opened_again_are_pending(index: RowIndex) -> None:
    index.mark_done(to_ids([name("d")]))
    first = index.pending_in(0, 10)
    assert index.render_again([name("b"), name("d"), name("elsewhere")]) == 1, "d was done before"
    assert index.pending_in(0, 10) == first, "this pass goes on as it was"
    assert index.reopen() == 2
    assert index.pending_in(0, 10) == [(1, name("b")), (5, name("d"))]
    assert index.counts() == RowCounts(rows=6, distinct=4, duplicates=2, done=2, pending=2)
    assert index.reopen() == 0
    assert index.render_again([name("a")]) == 0
    assert index.reopen() == 1
    assert index.pending_in(0, 10) == [(0, name("a"))]


def test_of_pending_rows_only_those_that_are_wanted_are_left(index: RowIndex) -> None:
    index.mark_done(to_ids([name("a")]))
    index.leave_only([name("a"), name("b"), name("x")])
    assert index.pending_in(0, 10) == [(1, name("b"))]
    assert index.counts() == RowCounts(rows=6, distinct=4, duplicates=2, done=1, pending=1, later=2)


def test_rows_are_found_where_their_records_say(index: RowIndex) -> None:
    """Positions 1 and 4 hold b: only the first counts, and what is elsewhere is found by its row_id."""
    row_ids = [name("a"), name("b"), name("c"), name("elsewhere")]
    assert index.mark_done(to_ids(row_ids), as_positions([0, 4, 5, 99])) == 3
    assert index.pending_in(0, 10) == [(5, name("d"))]
    assert index.mark_done(to_ids([name("d")]), as_positions([5])) == 1
    assert index.mark_done(to_ids([name("a"), name("d")]), as_positions([0, 5])) == 0
    assert index.num_doubled == 2


def test_the_first_pending_row_is_where_reading_begins(index: RowIndex) -> None:
    assert index.first_pending() == 0
    index.mark_done(to_ids([name("a"), name("b")]))
    assert index.first_pending() == 3
    index.mark_done(to_ids([name("c"), name("d")]))
    assert index.first_pending() == 6
    index.render_again([name("b")])
    index.reopen()
    assert index.first_pending() == 1


def test_pending_rows_are_counted_without_a_number_for_each() -> None:
    num_rows = 3 << 20
    ids = np.arange(2 * num_rows, dtype=np.uint64).reshape(-1, 2)
    with closing(RowIndex()) as index:
        index.add_ids(np.arange(num_rows), ids)
        index.counts()
        tracemalloc.start()
        assert index.num_pending(LaneKey()) == num_rows
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak_bytes < 8 * num_rows


def test_rows_of_too_many_lanes_leave_nothing_behind(index: RowIndex) -> None:
    before, lanes = index.counts(), [LaneKey(f"m{number}") for number in range(MAX_LANES + 1)]
    rows = [(100 + at, f"{at:032x}") for at in range(len(lanes))]
    with pytest.raises(TableError, match="more than 1,024"):
        index.add(rows, lanes)
    assert index.counts() == before and len(index.lanes) < 2
