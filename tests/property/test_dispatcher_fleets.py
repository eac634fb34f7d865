"""Whole fleets and lanes in virtual time: killers are found, the rest is rendered, memory stays flat."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import example, given, settings, strategies as st

from framefleet.cluster.dispatch.dispatcher import Dispatcher, LeaseSize, Row
from framefleet.pipeline.rows.identity import LaneKey
from tests.long import examples
from tests.simulator.faulty_fleet import FaultyFleet, FaultyRun, FaultySimulation
from tests.simulator.faulty_lanes import FaultyLanes
from tests.simulator.several_lanes import SimulatedLane

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


LANES = [LaneKey("a"), LaneKey("b"), LaneKey("a", "my:recipe")]
MOST_ROWS = 14


@settings(max_examples=examples(120), deadline=None)
@given(
    seed=st.integers(0, 2**32),
    machines=st.integers(1, 2),
    num_rows=st.lists(st.integers(1, MOST_ROWS), min_size=3, max_size=3),
    broken=st.sampled_from([None, LANES[1], LANES[2]]),
    killers=st.sets(st.tuples(st.sampled_from(LANES), st.integers(0, MOST_ROWS - 1)), max_size=9),
    raisers=st.sets(st.tuples(st.sampled_from(LANES), st.integers(0, MOST_ROWS - 1)), max_size=4),
    refused=st.sets(st.tuples(st.sampled_from(LANES), st.integers(0, MOST_ROWS - 1)), max_size=4),
    hangers=st.sets(st.tuples(st.sampled_from(LANES), st.integers(0, MOST_ROWS - 1)), max_size=4),
    oversized=st.sets(st.tuples(st.sampled_from(LANES), st.integers(0, MOST_ROWS - 1)), max_size=9),
)
@example(  # at the end, a row waits for a new process where both machines have an idle one
    seed=38818950,
    machines=2,
    num_rows=[3, 13, 4],
    broken=None,
    killers=set(),
    raisers={(LANES[2], 3), (LANES[1], 10)},
    refused={(LANES[1], 3)},
    hangers=set(),
    oversized={(LANES[2], 1), (LANES[2], 2), (LANES[1], 12)},
)
def test_rows_of_lanes_that_can_be_served_end_as_they_would_alone(
    seed: int,
    machines: int,
    num_rows: list[int],
    broken: LaneKey | None,
    killers: set[tuple[LaneKey, int]],
    raisers: set[tuple[LaneKey, int]],
    refused: set[tuple[LaneKey, int]],
    hangers: set[tuple[LaneKey, int]],
    oversized: set[tuple[LaneKey, int]],
) -> None:
    specs = {
        key: SimulatedLane(num_rows=num, row_s=5.0, load_s=20.0)
        for key, num in zip(LANES, num_rows, strict=True)
    }
    faults: dict[str, frozenset[str]] = {}
    for name, named in (
        ("killers", killers),
        ("raisers", raisers),
        ("refused", refused),
        ("hangers", hangers),
        ("oversized", oversized),
    ):
        faults[name] = frozenset({f"{key} {n}" for key, n in named}.difference(*faults.values()))
    bad = frozenset().union(*faults.values())
    fleet = FaultyFleet(workers=machines, is_fresh=True, seed=seed, **faults)
    simulated = FaultyLanes(specs, fleet, broken=frozenset({broken} if broken else ()))
    outcome = simulated.run()
    # Each hang is waited for: half an hour where nothing is known of such rows.
    assert outcome.end_s < 3600 * 4 + 1800 * 8 * len(fleet.hangers), "it ends"
    given_up = {gone.row.row_id for gone in outcome.given_up}
    models_done = {key.model for key in LANES for row_id in outcome.done if row_id.startswith(f"{key} ")}
    for key, num in zip(LANES, num_rows, strict=True):
        rows = {f"{key} {n}" for n in range(num)}
        done = rows & set(outcome.done)
        if key == broken:
            assert not done and key in simulated._closed()
            continue
        good = rows - bad
        assert good <= set(outcome.done), "whatever became of the others"
        assert not given_up & good
        if good or (machines == 1 and key.model in models_done):
            assert rows & bad <= given_up, "each bad row is found"
        else:  # no machine is known to serve such rows
            assert key in simulated._closed() or rows & bad <= given_up
    assert set(outcome.done.values()) <= {1}
