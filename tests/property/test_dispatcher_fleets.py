"""Whole fleets in virtual time: killers are found, everything else is rendered, memory stays flat."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings, strategies as st

from framefleet.cluster.dispatch.dispatcher import Dispatcher, LeaseSize, Row
from tests.long import examples
from tests.simulator.faulty_fleet import FaultyFleet, FaultyRun, FaultySimulation

LEASES_PER_WORKER = 2


def table(num_rows: int, *, shapes: int) -> Iterable[Row]:
    return (Row(row_id=str(n), shape=str(n * n % 7 % shapes)) for n in range(num_rows))


def assert_every_row_ended_once(outcome: FaultyRun, num_rows: int) -> None:
    ended = sorted([*outcome.done.elements(), *(gone.row.row_id for gone in outcome.given_up)], key=int)
    assert ended == [str(n) for n in range(num_rows)]
    assert outcome.stale_counted == 0


@settings(max_examples=examples(120), deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_rows=st.integers(1, 150),
    workers=st.integers(1, 12),
    killers=st.sets(st.integers(0, 149), max_size=12),
    raisers=st.sets(st.integers(0, 149), max_size=6),
    min_rows=st.integers(1, 8),
    window=st.integers(1, 60),
)
def test_exactly_the_killers_are_quarantined_whatever_else_is_in_flight(
    seed: int, num_rows: int, workers: int, killers: set[int], raisers: set[int], min_rows: int, window: int
) -> None:
    fleet = FaultyFleet(
        workers=workers,
        seed=seed,
        killers=frozenset(map(str, killers)),
        raisers=frozenset(map(str, raisers - killers)),
    )
    dispatcher = Dispatcher(window=window, size=LeaseSize(min_rows=min_rows, max_rows=16))
    outcome = FaultySimulation(dispatcher, table(num_rows, shapes=3), fleet).run()
    assert_every_row_ended_once(outcome, num_rows)
    quarantined = {gone.row.row_id for gone in outcome.given_up if "died" in gone.reason}
    assert quarantined == {str(n) for n in killers if n < num_rows}
    failed = {gone.row.row_id for gone in outcome.given_up if "failed" in gone.reason}
    assert failed == {str(n) for n in raisers - killers if n < num_rows}


def test_five_bad_machines_of_five_hundred_cost_no_good_row_and_are_used_no_longer() -> None:
    fleet = FaultyFleet(workers=500, num_bad=5, is_fresh=True, seconds_per_row=20.0)
    outcome = FaultySimulation(Dispatcher(), table(20_000, shapes=3), fleet).run()
    assert_every_row_ended_once(outcome, 20_000)
    assert not outcome.given_up
    assert sorted(outcome.unused) == [f"{n} is no longer used: SIGILL" for n in range(5)]


def test_memory_follows_the_window_not_the_table() -> None:
    size = LeaseSize(min_rows=4, max_rows=8)
    outcome = FaultySimulation(
        Dispatcher(window=64, size=size), table(5_000, shapes=5), FaultyFleet(workers=4, flaky_chance=0.01)
    ).run()
    assert_every_row_ended_once(outcome, 5_000)
    assert outcome.num_held_most <= 64 + 4 * LEASES_PER_WORKER * 8


def test_workers_finish_together() -> None:
    fleet = FaultyFleet(workers=16, seconds_per_row=2.0)
    outcome = FaultySimulation(Dispatcher(size=LeaseSize(min_rows=8)), table(2000, shapes=1), fleet).run()
    assert outcome.idle_s < 0.02 * fleet.workers * outcome.end_s
