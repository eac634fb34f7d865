"""A machine that is cut off from the store while others use it is told from a store that is down."""

from __future__ import annotations

from framefleet.cluster.fleet.losses import CUT_OFF_S, Storing

NOW = 1000.0


def test_a_store_that_is_silent_to_all_is_no_machines_fault() -> None:
    storing = Storing()
    storing.stored("worker-1", now=NOW - CUT_OFF_S - 1)
    assert not storing.is_cut_off("worker-0", silent_s=CUT_OFF_S, now=NOW)


def test_a_worker_whose_store_is_silent_while_others_store_is_cut_off_after_a_minute() -> None:
    storing = Storing()
    storing.stored("worker-1", now=NOW - 1)
    assert not storing.is_cut_off("worker-0", silent_s=CUT_OFF_S - 1, now=NOW)
    assert storing.is_cut_off("worker-0", silent_s=CUT_OFF_S, now=NOW)


def test_what_it_stored_itself_says_nothing_of_others() -> None:
    storing = Storing()
    storing.stored("worker-0", now=NOW - 1)
    assert not storing.is_cut_off("worker-0", silent_s=CUT_OFF_S, now=NOW)
