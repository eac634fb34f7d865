"""When a worker is started again, when it is not, and when its machine is no longer used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest
from hypothesis import given, strategies as st

from framefleet.cluster.dispatch.faults import (
    MAX_REST_S,
    SILENT_REST_S,
    FaultPolicy,
    Hosts,
    LossKind,
    LostRows,
)
from framefleet.cluster.fleet.losses import LaneHosts
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.rows.identity import LaneKey


def fault(
    hosts: Hosts,
    worker: str,
    host: str,
    kind: LossKind = "machine",
    *,
    now: float = 0.0,
    rows: Collection[str] = (),
    given_up: Collection[str] = (),
    busy: Collection[str] = (),
) -> bool:
    """Let the worker begin there and fail; return whether it is started again."""
    hosts.placed(worker, host, f"machine {host}")
    loss = LostRows(rows=rows, given_up=given_up, busy=busy)
    starts_at = hosts.fault(worker, "CUDA error", kind=kind, now=now, loss=loss)
    return starts_at is not None


def test_a_worker_is_started_again_and_its_machine_blocked_after_three_faults_in_a_row() -> None:
    hosts = Hosts(FaultPolicy())
    for _ in range(5):  # a row that was done in between clears both
        assert fault(hosts, "w", "a") and fault(hosts, "w", "a")
        hosts.placed("w", "a", "machine a")
        hosts.done("w")
    assert all(fault(hosts, "w", str(number), "gone") for number in range(20)) and not hosts.unused
    assert [fault(hosts, "w", "a") for _ in range(3)] == [True, True, True]
    assert hosts.to_avoid(0.0)[0] == ["a"], "started again, but elsewhere"
    assert hosts.unused == ("machine a is no longer used: CUDA error",)


def test_one_bad_worker_among_good_ones_is_not_replaced_and_its_machine_goes_on() -> None:
    hosts, is_replaced = Hosts(FaultPolicy()), []
    hosts.placed("good", "a", "machine a")
    for _ in range(3):
        is_replaced.append(fault(hosts, "bad", "a"))
        hosts.done("good")
    assert is_replaced == [True, True, False]
    hosts.use_again({"a"})
    assert hosts.unused == ("bad is no longer used: CUDA error",)
    hosts.use_again({"b"})
    assert not hosts.is_barred("bad"), "another machine has taken the place of its own"
    assert [fault(hosts, "bad", "b") for _ in range(2)] == [True, True] and not hosts.unused


def test_faults_of_several_workers_in_turn_do_not_end_one_while_others_are_sound() -> None:
    hosts = Hosts(FaultPolicy())
    for worker in "stuvwxyz":
        hosts.placed(worker, "a", "machine a")
    assert all(fault(hosts, worker, "a") for worker in "stuvwx")
    assert not hosts.unused
    assert fault(hosts, "y", "a")
    assert fault(hosts, "z", "a")
    assert hosts.is_blocked("a"), "none of them is sound any more"


@pytest.mark.parametrize("kind", ["silent", "machine"])
def test_one_event_that_strikes_all_workers_of_a_machine_is_one_fault(kind: LossKind) -> None:
    hosts, workers = Hosts(FaultPolicy()), "stuvwxyz"
    for wave in range(3):
        for worker in workers:
            hosts.placed(worker, "a", "machine a")
        assert not hosts.is_blocked("a"), wave
        for worker in workers:
            assert hosts.fault(worker, "no answer for 13 s", kind=kind, now=0.0) is not None
    assert hosts.is_blocked("a")


def test_faults_on_other_machines_are_not_those_of_the_last_one() -> None:
    hosts = Hosts(FaultPolicy())
    hosts.placed("good", "c", "machine c")
    assert [fault(hosts, "w", host, "silent") for host in "abc"] == [True] * 3
    assert not hosts.unused


def test_what_every_start_there_would_say_again_blocks_the_machine_at_once() -> None:
    hosts = Hosts(FaultPolicy())
    hosts.placed("good", "a", "machine a")
    hosts.placed("w", "a", "machine a")
    error = ModelError("no model there", "put it there")
    assert hosts.fault("w", error.problem, kind="refused", now=0.0, error=error) is not None
    assert hosts.is_blocked("a")
    assert isinstance(hosts.error, ModelError)
    assert (hosts.error.problem, hosts.error.fix) == ("no model there (on machine a)", "put it there")
    for _ in range(3):
        fault(hosts, "v", "b")
    assert (hosts.error, len(hosts.unused)) == (None, 2), "for several reasons"


def test_deaths_count_once_the_rows_that_may_be_why_are_done_elsewhere() -> None:
    alone, beside = Hosts(FaultPolicy()), Hosts(FaultPolicy())
    beside.placed("other", "b", "machine b")
    for number in range(3):
        rows = [f"{number}a", f"{number}b"]
        fault(alone, "w", "a", "died", rows=rows)
        fault(beside, "w", "a", "died", rows=rows)
        for row in rows:
            beside.done("other", row)
    assert not alone.unused
    assert beside.to_avoid(0.0)[0] == ["a"]


def test_rows_that_are_done_elsewhere_do_not_make_deaths_of_other_rows_the_machines() -> None:
    hosts = Hosts(FaultPolicy())
    hosts.placed("other", "b", "machine b")
    for _ in range(5):
        fault(hosts, "w", "a", "died", rows=["killer", "good"])
        hosts.done("other", "good")
    assert not hosts.unused
    hosts.done("other", "killer")
    fault(hosts, "w", "a", "died", rows=["next"])
    assert hosts.is_blocked("a"), "it was not the row"


def test_a_row_that_is_given_up_on_one_machine_explains_its_deaths_on_all() -> None:
    hosts = Hosts(FaultPolicy())
    for _ in range(6):
        fault(hosts, "w", "a", "died", rows=["killer"])
    fault(hosts, "v", "b", "died", rows=["killer"], given_up=["killer"])
    fault(hosts, "w", "a", "died", rows=["next"])
    assert not hosts.unused
    hosts.done("w")
    for number in range(12):
        assert fault(hosts, "w", "a", "died", rows=[str(number)], given_up=[str(number)])
    assert not hosts.unused


def killed(hosts: Hosts, *, num_rows: int, busy: Collection[str]) -> bool:
    """Give up that many rows for deaths, while others have rows; return whether the lane is hopeless then."""
    for number in range(num_rows):
        fault(hosts, f"w{number}", f"machine {number}", "died", rows=["x"], given_up=["x"], busy=busy)
    return bool(hosts.despair(64))


def test_a_lane_is_not_closed_while_one_of_its_workers_has_had_rows_all_the_while() -> None:
    hosts = Hosts(FaultPolicy())
    healthy = [f"healthy-{number}" for number in range(64)]
    assert not killed(hosts, num_rows=200, busy=healthy)
    assert not killed(hosts, num_rows=1, busy=healthy[:1])
    hosts.placed("healthy-0", "a", "machine a")
    hosts.done("healthy-0", "long")
    assert not killed(hosts, num_rows=24, busy=[]), "counted anew from there"
    assert killed(hosts, num_rows=1, busy=["new"]), "what began since may be of the same rows"


def test_a_lane_is_closed_once_the_last_worker_that_had_rows_all_the_while_dies_too() -> None:
    hosts = Hosts(FaultPolicy())
    assert not killed(hosts, num_rows=40, busy=["old", "older"])
    fault(hosts, "old", "b", "died", rows=["y"], busy=["older", "new"])
    assert not hosts.despair(1)
    fault(hosts, "older", "c", "died", rows=["z"], busy=["new"])
    assert hosts.despair(1) == "rows that killed their workers, with none done in between: 40"
    hosts = Hosts(FaultPolicy())
    assert [killed(hosts, num_rows=number, busy=[]) for number in (24, 1)] == [False, True]
    assert hosts.num_killers == 25 and not hosts.unused


@pytest.mark.parametrize("num_workers", [1, 64])
def test_machines_may_all_go_at_once_but_not_for_ever_with_no_row_done(num_workers: int) -> None:
    hosts = Hosts(FaultPolicy())

    def is_over(num_gone: int) -> bool:
        for number in range(num_gone):
            hosts.placed("w", f"{number}", "spot")
            assert hosts.fault("w", "its machine is gone", kind="gone", now=0.0) is not None
        return bool(hosts.despair(num_workers))

    most = 3 * max(num_workers, 10)
    assert not is_over(most - 1)
    hosts.done("w", "row")
    assert not is_over(most - 1)
    assert is_over(1)
    assert f"machines went away, with no row done in between: {most}" in hosts.despair(num_workers)


def test_a_row_that_ends_by_its_own_error_is_not_why_its_worker_died_before() -> None:
    hosts = Hosts(FaultPolicy())
    for number in range(3):
        fault(hosts, "w", "a", "died", rows=[f"{number}"])
    assert not hosts.unused, "in doubt"
    for number in range(3):
        hosts.acquitted(f"{number}")
    fault(hosts, "w", "a")
    assert hosts.is_blocked("a")


@pytest.mark.parametrize(
    ("prover", "is_explained", "num_deaths"),
    [
        (None, False, 7),
        (LaneKey(), False, 13),
        (LaneKey(), True, 25),
        (LaneKey(recipe="my:own"), False, 13),
        (LaneKey("a model"), False, 7),
    ],
)
def test_a_machine_where_all_dies_is_blocked_in_the_end_and_later_once_a_row_of_its_model_was_done(
    prover: LaneKey | None, is_explained: bool, num_deaths: int
) -> None:
    lanes = LaneHosts(FaultPolicy())
    if prover is not None:
        lanes.of(prover).placed("w", "a", "machine a")
        lanes.of(prover).done("w", "row")
    hosts = lanes.of(LaneKey())
    for number in range(num_deaths):
        assert not hosts.unused
        rows = [str(number)]
        fault(hosts, "w", "a", "died", rows=rows, given_up=rows if is_explained else ())
    assert hosts.is_blocked("a")


def test_rests_double_up_to_a_minute_and_a_silent_machine_rests_until_ray_has_noticed() -> None:
    hosts, rests = Hosts(FaultPolicy(faults=20)), []
    for _ in range(8):
        rest = hosts.fault("w", "bad", kind="machine", now=100.0)
        assert rest is not None
        rests.append(rest - 100.0)
    assert rests == [1, 2, 4, 8, 16, 32, MAX_REST_S, MAX_REST_S]
    fault(hosts, "v", "a", "silent", now=100.0)
    assert hosts.to_avoid(100.0) == ([], {"a": 100.0 + SILENT_REST_S})
    assert hosts.to_avoid(100.0 + SILENT_REST_S) == ([], {})


KINDS = st.sampled_from(["died", "machine", "silent", "gone"])


@given(st.lists(st.tuples(st.sampled_from("vw"), st.sampled_from("ab"), KINDS, st.booleans()), max_size=60))
def test_what_is_no_longer_used_stays_so_and_something_was_wrong_with_it(
    events: list[tuple[str, str, LossKind, bool]],
) -> None:
    hosts, in_a_row = Hosts(FaultPolicy()), Counter[str]()
    for worker, host, kind, goes_well in events:
        before = hosts.unused
        if goes_well:
            hosts.placed(worker, host, host)
            hosts.done(worker)
            in_a_row[worker] = in_a_row[host] = 0
        else:
            in_a_row.update([worker, host] if kind != "gone" else [])
            fault(hosts, worker, host, kind)
            assert max(in_a_row[worker], in_a_row[host]) >= 3 or hosts.unused == before
        assert set(before) <= set(hosts.unused)
