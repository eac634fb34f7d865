"""Each rule of leasing, retrying and sizing, as one example; deaths are next door."""

from __future__ import annotations

import pytest

from framefleet.cluster.dispatch.dispatcher import GivenUp, LeaseSize, Row
from tests.unit.dispatching import dispatcher_with, ids, join, lease


def test_a_lease_holds_rows_of_one_shape_oldest_first() -> None:
    granted = lease(dispatcher_with("xyxxy", min_rows=3), "A")
    assert ids(granted) == "0 2 3"
    assert (granted.alone, granted.rows[0].attempt) == (False, 1)


def test_a_worker_has_at_most_two_leases_in_flight() -> None:
    dispatcher = dispatcher_with("xxxxxx")
    lease(dispatcher, "A")
    lease(dispatcher, "A")
    assert dispatcher.lease("A", 0.0) is None
    dispatcher.done("A", "0", 1.0)
    assert dispatcher.lease("A", 1.0) is None, "its first lease is not finished yet"
    dispatcher.done("A", "1", 1.0)
    assert ids(lease(dispatcher, "A", 1.0)) != ""


def test_a_worker_stays_with_the_shape_it_renders() -> None:
    dispatcher = dispatcher_with("xyxyxy", min_rows=1)
    assert [ids(lease(dispatcher, "A")), ids(lease(dispatcher, "A"))] == ["0", "2"]


def test_an_idle_worker_takes_the_shape_of_the_oldest_row() -> None:
    dispatcher = dispatcher_with("xxyyx", workers="AB")
    assert [ids(lease(dispatcher, "A")), ids(lease(dispatcher, "B"))] == ["0 1", "2 3"]


def test_reopened_for_rows_that_were_done_and_are_to_be_rendered_again() -> None:
    dispatcher = dispatcher_with("x", closed=True)
    lease(dispatcher, "A")
    dispatcher.done("A", "0", 1.0)
    assert dispatcher.finished
    dispatcher.reopen()
    dispatcher.add(Row(row_id="0", shape="x"))
    dispatcher.close()
    assert ids(lease(dispatcher, "A")) == "0"
    assert not dispatcher.finished
    dispatcher.done("A", "0", 2.0)
    assert dispatcher.finished


def test_a_row_is_not_added_twice() -> None:
    with pytest.raises(AssertionError, match="row 0 was added twice"):
        dispatcher_with("x").add(Row(row_id="0", shape="x"))


# Errors


def test_a_failed_row_goes_to_another_worker_before_all_fresh_rows() -> None:
    dispatcher = dispatcher_with("xxxx", workers="AB", min_rows=1)
    lease(dispatcher, "A")
    assert dispatcher.failed("A", "0", "bad") is None
    assert ids(lease(dispatcher, "A")) == "1"
    assert dispatcher.failed("A", "1", "does not fit", retry=False), "it would come again"
    retried = lease(dispatcher, "B")
    assert (ids(retried), retried.rows[0].attempt) == ("0", 2)
    dispatcher = dispatcher_with("x", workers="AB")
    lease(dispatcher, "A")
    dispatcher.failed("A", "0", "bad")
    assert dispatcher.lease("A", 0.0) is None
    dispatcher.lost("B")
    assert ids(lease(dispatcher, "A")) == "0", "where no other worker is left"


def test_a_retried_row_takes_fresh_rows_of_its_shape_along() -> None:
    dispatcher = dispatcher_with("xyxx", workers="AB", min_rows=3)
    lease(dispatcher, "A")
    dispatcher.failed("A", "0", "bad")
    dispatcher.add(Row(row_id="4", shape="x"))
    assert ids(lease(dispatcher, "B")) == "0 4"


def test_a_row_is_given_up_after_three_errors() -> None:
    dispatcher = dispatcher_with("x", workers="ABC")
    for worker in "AB":
        lease(dispatcher, worker)
        assert dispatcher.failed(worker, "0", f"bad on {worker}") is None
    lease(dispatcher, "C")
    assert dispatcher.failed("C", "0", "bad on C") == GivenUp(
        row=Row(row_id="0", shape="x"),
        attempts=3,
        errors=(("A", "bad on A"), ("B", "bad on B"), ("C", "bad on C")),
        reason="it failed 3 times",
    )


def test_a_row_whose_error_may_be_of_an_earlier_one_is_tried_last_in_a_new_process() -> None:
    dispatcher = dispatcher_with("xx", min_rows=1)
    for _ in range(3):
        assert ids(lease(dispatcher, "A")) == "0"
        assert dispatcher.failed("A", "0", "bad", may_be_spoilt=True) is None
    assert (dispatcher.num_for_new("A"), dispatcher.num_waiting) == (1, 2)
    assert ids(lease(dispatcher, "A")) == "1"
    assert dispatcher.done("A", "1", 0.0)
    dispatcher.join("renewed", is_new=False)
    assert dispatcher.lease("A", 9e9) is dispatcher.lease("renewed", 9e9) is None
    join(dispatcher, "B")
    assert ids(lease(dispatcher, "B")) == "0"
    given_up = dispatcher.failed("B", "0", "bad", may_be_spoilt=True)
    assert given_up is not None and given_up.attempts == 4


def test_rows_put_back_go_first_and_spend_no_attempt() -> None:
    dispatcher = dispatcher_with("xxyy", workers="AB")
    lease(dispatcher, "A")
    dispatcher.put_back("A", ["0", "1"])
    again = lease(dispatcher, "B")
    assert (ids(again), again.rows[0].attempt) == ("0 1", 1)
    assert dispatcher.lost("A") == [], "it leaves without a death"


def test_a_late_outcome_of_a_given_up_worker_does_not_count() -> None:
    dispatcher = dispatcher_with("x", workers="AB")
    lease(dispatcher, "A")
    dispatcher.lost("A")
    assert dispatcher.failed("A", "0", "bad", retry=False) is None
    dispatcher.put_back("A", ["0"])
    assert dispatcher.done("A", "0", 1.0) is False, "the row waits again"
    lease(dispatcher, "B")
    assert dispatcher.done("A", "0", 2.0) is False, "the row is B's now"
    assert dispatcher.done("B", "0", 3.0) is True
    assert dispatcher.done("B", "0", 4.0) is False, "an outcome counts once"
    assert (dispatcher.num_waiting, dispatcher.num_leased) == (0, 0)


# Lease size


@pytest.mark.parametrize(
    ("seconds_per_row", "share", "rows"),
    [
        (None, None, 8),  # not measured yet: one forward
        (2.0, None, 30),  # 60 s
        (0.0, None, 64),  # at most max_rows
        (1000.0, None, 8),  # at least one forward
        (2.0, 5, 5),  # near the end: share what is left
        (1000.0, 3, 3),
        (None, 0, 1),
    ],
)
def test_lease_size(seconds_per_row: float | None, share: int | None, rows: int) -> None:
    size = LeaseSize(min_rows=8, max_rows=64, target_s=60.0)
    assert size.rows(seconds_per_row=seconds_per_row, share=share) == rows


def test_leases_grow_to_the_measured_target_when_rows_end_in_bursts() -> None:
    dispatcher = dispatcher_with("x" * 300, min_rows=8)
    now, sizes = 0.0, []
    for _ in range(6):  # eight rows fuse and end together every 16 s: 2 s a row
        granted = lease(dispatcher, "A", now)
        sizes.append(len(granted.rows))
        for number, leased in enumerate(granted.rows):
            now += 16.0 if number % 8 == 0 else 0.0
            dispatcher.done("A", leased.row.row_id, now)
    assert sizes[0] == 8
    assert all(26 <= size <= 34 for size in sizes[1:]), sizes


def test_time_without_rows_does_not_count_as_rendering() -> None:
    dispatcher = dispatcher_with("x" * 100, min_rows=1, max_rows=100)
    for now in (0.0, 5000.0):
        first, *rest = lease(dispatcher, "A", now).rows
        dispatcher.done("A", first.row.row_id, now + 10.0)
        dispatcher.put_back("A", [leased.row.row_id for leased in rest])
    assert len(lease(dispatcher, "A", 9000.0).rows) == 6  # 60 s at 10 s a row


def test_near_the_end_every_lease_slot_gets_its_share() -> None:
    dispatcher = dispatcher_with("x" * 16, workers="ABCD", min_rows=8, closed=True)
    assert ids(lease(dispatcher, "A")) == "0 1"


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [6, 5, 4, 3]), (8, [8, 8, 4, 4])])
def test_near_the_end_rows_that_share_forwards_still_fill_them(batch_size: int, sizes: list[int]) -> None:
    dispatcher = dispatcher_with("x" * 40, workers="AB", min_rows=8)
    for worker in "AB":
        for leased in lease(dispatcher, worker).rows:
            dispatcher.done(worker, leased.row.row_id, 99.0, batch_size=batch_size)
    dispatcher.close()
    assert [len(lease(dispatcher, worker).rows) for worker in "ABAB"] == sizes


def test_rows_in_hand_are_counted_until_they_end_or_come_back() -> None:
    dispatcher = dispatcher_with("xxx", workers="AB", min_rows=3)
    lease(dispatcher, "A")
    assert dispatcher.in_hand() == {"A": 3}
    dispatcher.done("A", "0", 1.0)
    dispatcher.put_back("A", ["1", "2"])
    assert dispatcher.in_hand() == {}
