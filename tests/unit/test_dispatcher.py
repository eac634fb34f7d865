"""Each rule of leasing, retrying and sizing, and of what deaths are blamed on, as one example."""

from __future__ import annotations

from functools import partial

import pytest

from framefleet.cluster.dispatch.dispatcher import Dispatcher, GivenUp, LeaseSize, Row
from framefleet.cluster.dispatch.faults import FaultPolicy
from tests.unit.dispatching import MACHINE, dispatcher_with, ids, join, lease, prove


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


@pytest.mark.parametrize("end", ["error", "death"])
def test_a_row_of_which_another_worker_has_a_copy_is_not_given_up(end: str) -> None:
    dispatcher = Dispatcher(FaultPolicy(attempts=1, worker_deaths=1), proven={"A", "B"})
    for worker in "AB":
        join(dispatcher, worker)
    for row_id in "01":
        dispatcher.add(Row(row_id=row_id, shape="x"))
    dispatcher.close()
    assert [ids(lease(dispatcher, worker)) for worker in "AB"] == ["0", "1"]
    dispatcher.done("B", "1", 10.0)
    assert ids(lease(dispatcher, "B", 100.0)) == "0", "a copy"
    ended = (lambda worker: dispatcher.failed(worker, "0", "bad")) if end == "error" else dispatcher.lost
    assert not ended("A")
    assert (dispatcher.rows_of("B"), dispatcher.take_dropped("B")) == (("0",), [])
    assert ended("B")


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
        (None, 0, 0),
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
    dispatcher = dispatcher_with("x" * 24, workers="ABCD", min_rows=8)
    lease(dispatcher, "A")
    dispatcher.done("A", "0", 1.0)
    dispatcher.close()
    assert ids(lease(dispatcher, "B")) == "8 9"


@pytest.mark.parametrize(("num_workers", "sizes"), [(1, [8, 8]), (2, [8, 8]), (4, [8]), (8, [4])])
def test_rows_of_an_unmeasured_shape_are_shared_out_evenly_in_whole_forwards(
    num_workers: int, sizes: list[int]
) -> None:
    dispatcher = dispatcher_with("x" * 32, workers="", min_rows=8, closed=True)
    dispatcher.expect(num_workers)
    for number in range(num_workers):
        join(dispatcher, str(number))  # the others are on their way
        leases = iter(partial(dispatcher.lease, str(number), 0.0), None)
        assert [len(granted.rows) for granted in leases] == sizes


def test_a_worker_gets_more_rows_of_a_short_table_once_others_are_slower() -> None:
    dispatcher = dispatcher_with("x" * 8, workers="AB", min_rows=4, closed=True)
    assert [ids(lease(dispatcher, worker)) for worker in "AB"] == ["0 1 2 3", "4 5 6 7"]
    for row_id in "0123":
        dispatcher.done("A", row_id, 8.0, batch_size=1.0)
    assert ids(lease(dispatcher, "A", 100.0)) in "4567", "a copy"


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


proven = partial(dispatcher_with, is_proven=True)


def kill_twice(dispatcher: Dispatcher) -> None:
    """Let workers A and B die with rows 0 and 1 in their hands."""
    for worker in "AB":
        lease(dispatcher, worker)
        assert dispatcher.lost(worker) == []


def test_rows_of_a_dead_worker_go_first() -> None:
    dispatcher = proven("xxyyx", workers="AB")
    lease(dispatcher, "A")
    dispatcher.lost("A")
    again = lease(dispatcher, "B")
    assert (ids(again), again.alone, again.rows[0].attempt) == ("0 1", False, 2)


def test_after_two_deaths_rows_run_alone_on_a_worker_that_holds_nothing_else() -> None:
    dispatcher = proven("xxxx", workers="AB")
    kill_twice(dispatcher)
    join(dispatcher, "C")
    suspect = lease(dispatcher, "C")
    assert (ids(suspect), suspect.alone) == ("0", True)
    assert dispatcher.lease("C", 0.0) is None, "nothing beside a suspect"
    dispatcher.done("C", "0", 1.0)
    assert ids(lease(dispatcher, "C")) == "1"


def test_busy_workers_run_empty_to_take_suspects_but_no_more_than_there_are() -> None:
    dispatcher = proven("x" * 10, workers="ABCDE")
    lease(dispatcher, "A")
    dispatcher.lost("A")
    assert [ids(lease(dispatcher, worker)) for worker in "BCDE"] == ["0 1", "2 3", "4 5", "6 7"]
    dispatcher.lost("B")
    assert dispatcher.lease("C", 0.0) is None
    assert dispatcher.lease("D", 0.0) is None
    assert ids(lease(dispatcher, "E")) == "8 9"
    dispatcher.done("C", "2", 1.0)
    assert dispatcher.lease("C", 1.0) is None
    dispatcher.done("C", "3", 1.0)
    assert ids(lease(dispatcher, "C", 1.0)) == "0"


def one_suspect_and_busy_workers(workers: str) -> Dispatcher:
    """Return a dispatcher where row 0 is a suspect and each of these workers holds a lease of one row."""
    dispatcher = proven("x" * 10, workers="AB", min_rows=1)
    lease(dispatcher, "A")
    dispatcher.lost("A")
    lease(dispatcher, "B")
    for worker in workers:
        join(dispatcher, worker)
        lease(dispatcher, worker)
    dispatcher.lost("B")
    return dispatcher


def test_a_worker_goes_on_when_another_took_the_suspect_and_another_runs_empty_when_it_dies() -> None:
    dispatcher = one_suspect_and_busy_workers("CD")
    assert dispatcher.lease("C", 0.0) is None
    join(dispatcher, "E")
    assert ids(lease(dispatcher, "E")) == "0"
    assert ids(lease(dispatcher, "C")) == "3"
    dispatcher.put_back("E", ["0"])
    assert dispatcher.lease("D", 0.0) is None, "now D runs empty for it; C is at work"
    dispatcher = one_suspect_and_busy_workers("CD")
    assert dispatcher.lease("C", 0.0) is None
    dispatcher.lost("C")
    assert dispatcher.lease("D", 0.0) is None


def test_a_row_is_quarantined_after_three_deaths_and_its_neighbour_finishes() -> None:
    dispatcher = proven("xx", workers="AB")
    kill_twice(dispatcher)
    join(dispatcher, "C")
    lease(dispatcher, "C")
    (given_up,) = dispatcher.lost("C")
    assert (given_up.row.row_id, given_up.attempts, given_up.struck_on) == ("0", 3, ("A", "B", "C"))
    assert given_up.reason == "its worker died 3 times while rendering it" and given_up.is_killer
    join(dispatcher, "D")
    assert ids(lease(dispatcher, "D")) == "1"
    assert dispatcher.done("D", "1", 1.0)


def test_a_row_is_borne_for_as_many_deaths_as_the_job_says_and_does_not_end_the_run() -> None:
    faults = FaultPolicy(worker_deaths=5)
    dispatcher = Dispatcher(faults)
    prove(dispatcher)
    dispatcher.add(Row(row_id="0", shape="x"))
    given_up = []
    for number in range(5):
        assert not given_up
        join(dispatcher, str(number))
        lease(dispatcher, str(number))
        given_up = dispatcher.lost(str(number))
    assert [row.reason for row in given_up] == ["its worker died 5 times while rendering it"]
    despairs = partial(faults.despairs, num_given_up=0, num_suspects=0, is_proven=True)
    assert not despairs(10) and despairs(21)


def machines(*places: tuple[str, str]) -> Dispatcher:
    """Return a dispatcher of six rows and one worker at each of these places: its machine, its slot."""
    dispatcher = Dispatcher(size=LeaseSize(min_rows=1, max_rows=1))
    for number in range(6):
        dispatcher.add(Row(row_id=str(number), shape="x"))
    for host, slot in places:
        dispatcher.join(f"{slot}.1", at=(host, slot))
    return dispatcher


@pytest.mark.parametrize("other", ["a", "b", ""])
def test_a_dead_workers_row_goes_to_another_machine_or_slot_even_where_its_successor_asks_first(
    other: str,
) -> None:
    dispatcher = machines(("a", "0"), *([(other, "1")] if other else []))
    assert ids(lease(dispatcher, "0.1")) == "0"
    dispatcher.lost("0.1")
    dispatcher.join("0.2", at=("a", "0"))
    assert ids(lease(dispatcher, "0.2")) == ("1" if other else "0"), "a fresh one, where there is another"
    assert not other or ids(lease(dispatcher, "1.1")) == "0"


def test_rows_that_are_not_suspected_go_back_without_a_death() -> None:
    dispatcher = proven("xx", workers="AB")
    lease(dispatcher, "A")
    assert dispatcher.lost("A", suspects=["1"]) == []
    assert [leased.attempt for leased in lease(dispatcher, "B").rows] == [2, 1]  # the suspect's first


def test_a_row_that_fails_as_on_a_broken_machine_waits_for_others_and_is_blamed_once_one_is_done() -> None:
    dispatcher = proven("xxy", workers="A", leases_per_worker=1)
    assert ids(lease(dispatcher, "A")) == "0 1"
    assert not dispatcher.is_rows_own("A", "0")
    assert dispatcher.lost("A", suspects=[]) == []
    join(dispatcher, "B")
    assert ids(lease(dispatcher, "B")) == "1", "and 0 waits"
    dispatcher.done("B", "1", 1.0)
    assert ids(lease(dispatcher, "B")) == "2", "and it waits"
    dispatcher.done("B", "2", 1.0)
    assert ids(lease(dispatcher, "B")) == "0"
    for _ in range(2):
        assert dispatcher.is_rows_own("B", "0")
        assert dispatcher.failed("B", "0", "no space") is None
        assert ids(lease(dispatcher, "B")) == "0"
    given_up = dispatcher.failed("B", "0", "no space")
    assert given_up and given_up.reason == "it failed 3 times"


def test_a_row_that_fails_as_on_a_broken_machine_is_tried_again_where_no_other_row_is_left() -> None:
    dispatcher = dispatcher_with("x", workers="A", closed=True)
    lease(dispatcher, "A")
    assert not dispatcher.is_rows_own("A", "0") and not dispatcher.is_rows_own("A", "none")
    dispatcher.lost("A", suspects=[])
    assert dispatcher.num_waiting == 1
    join(dispatcher, "B")
    assert ids(lease(dispatcher, "B")) == "0"
    assert not dispatcher.is_rows_own("B", "0"), "the machine has done none"


def test_the_last_rows_that_fail_as_on_a_broken_machine_are_blamed_where_others_were_done() -> None:
    dispatcher = proven("xx", workers="A", closed=True, leases_per_worker=1)
    assert ids(lease(dispatcher, "A")) == "0 1"
    assert not dispatcher.is_rows_own("A", "0"), "a new process may do it"
    dispatcher.lost("A", suspects=[])
    join(dispatcher, "B")
    assert ids(lease(dispatcher, "B")) == "1"
    assert not dispatcher.is_rows_own("B", "1")
    dispatcher.lost("B", suspects=[])
    join(dispatcher, "C")
    row_id = ids(lease(dispatcher, "C"))
    assert dispatcher.is_rows_own("C", row_id)
    assert dispatcher.failed("C", row_id, "no space") is None
    assert ids(lease(dispatcher, "C")) == row_id


def test_rows_that_killed_their_workers_are_named_where_only_other_models_had_rows_done() -> None:
    dispatcher = dispatcher_with("xxx", workers="", min_rows=1)
    for number in range(6):
        join(dispatcher, str(number))
        while dispatcher.lease(str(number), 0.0):
            """It takes all that it may have."""
        assert dispatcher.lost(str(number), why="SIGKILL") == []
    assert dispatcher.give_up_killers({"another machine"}) == []
    killers = dispatcher.give_up_killers({MACHINE})
    assert killers and all(row.attempts == 3 for row in killers)
    assert {row.reason for row in killers} == {
        "its worker died 3 times while rendering it; the last time: SIGKILL"
    }
    assert (dispatcher.num_waiting, dispatcher.num_leased) == (3 - len(killers), 0)


def test_one_row_that_hangs_three_times_is_given_up_though_others_waited_with_it() -> None:
    dispatcher = proven("xx", workers="")
    for number in range(3):
        join(dispatcher, str(number))
        while dispatcher.lease(str(number), 0.0):
            """It takes all that it may have."""
        given_up = dispatcher.lost(str(number), suspects=["0"], why="it hung")
    assert [(row.row.row_id, row.reason) for row in given_up] == [
        ("0", "its worker died 3 times while rendering it; the last time: it hung")
    ]


@pytest.mark.parametrize(("suspects", "is_saved"), [((), False), (None, True)])
def test_a_row_is_excused_for_its_machine_or_for_work_that_it_saved_but_not_for_ever(
    suspects: tuple[str, ...] | None, is_saved: bool
) -> None:
    dispatcher = proven("x", workers="")
    for number in range(13):
        join(dispatcher, str(number))
        assert ids(lease(dispatcher, str(number))) == "0"
        if is_saved:
            dispatcher.saved(str(number), "0")
        given_up = dispatcher.lost(str(number), suspects=suspects, why="its machine is gone")
        assert len(given_up) == (number == 12), "ten, then three deaths"
    (row,) = given_up
    assert row.reason == "its worker died 3 times while rendering it; the last time: its machine is gone"


def test_how_long_rows_take_is_known_of_a_worker_that_has_done_one_of_their_kind() -> None:
    dispatcher = proven("xxxy", workers="AB", min_rows=1)
    lease(dispatcher, "A")
    assert dispatcher.seconds_per_row("A", ["0"]) is None
    dispatcher.done("A", "0", 7.0)
    lease(dispatcher, "A", 7.0)
    assert dispatcher.seconds_per_row("A", ["1"]) == 7.0
    assert dispatcher.seconds_per_row("A", []) is None
    lease(dispatcher, "B")
    assert dispatcher.seconds_per_row("B", ["2"]) is None, "it may have to compile first"
