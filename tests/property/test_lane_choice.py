"""Which lane a worker serves: rules that hold for every backlog, and whole fleets in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from framefleet.cluster.dispatch.lane_choice import MIN_LOADS, Backlog, move_from, next_lane, shares_s
from framefleet.pipeline.rows.identity import LaneKey
from tests.long import examples
from tests.simulator.faulty_fleet import FaultyFleet
from tests.simulator.several_lanes import SeveralLanes, SimulatedLane

SECONDS = st.one_of(st.none(), st.floats(0.01, 1000.0))
BACKLOG = st.builds(
    Backlog, num_rows=st.integers(0, 10_000), row_s=SECONDS, num_workers=st.integers(0, 50), load_s=SECONDS
)
BACKLOGS = st.dictionaries(st.sampled_from([LaneKey(name) for name in "abcdef"]), BACKLOG, min_size=1)


@given(backlogs=BACKLOGS)
def test_a_new_worker_gets_the_model_with_most_to_do_for_it(backlogs: dict[LaneKey, Backlog]) -> None:
    shares = shares_s(backlogs)
    assert shares[next_lane(backlogs)] == max(shares.values())


@given(backlogs=BACKLOGS, own=st.sampled_from([LaneKey(name) for name in "abcdef"]))
def test_an_idle_worker_moves_only_to_rows_that_are_worth_it(
    backlogs: dict[LaneKey, Backlog], own: LaneKey
) -> None:
    moved = move_from(own, backlogs)
    if own in backlogs and backlogs[own].num_rows:
        assert moved is None
    if moved is None:
        return
    there = backlogs[moved]
    assert moved != own and there.num_rows
    unserved = [
        name for name, one in backlogs.items() if name != own and one.num_rows and not one.num_workers
    ]
    if unserved:
        assert moved in unserved
    elif there.load_s is not None:
        assert shares_s(backlogs)[moved] >= MIN_LOADS * there.load_s


def test_a_lull_costs_no_warm_worker() -> None:
    """Rows of its model are all under way, and those of the other would take no longer than loading."""
    a = Backlog(num_rows=0, row_s=1.0, num_workers=4, load_s=60.0)
    for num_rows, moved in ((100, None), (1000, "b")):
        b = Backlog(num_rows=num_rows, row_s=1.0, num_workers=1, load_s=60.0)
        assert move_from("a", {"a": a, "b": b}) == moved


@settings(max_examples=examples(60), deadline=None)
@given(
    seed=st.integers(0, 2**32),
    workers=st.integers(1, 12),
    models=st.lists(
        st.builds(
            SimulatedLane,
            num_rows=st.integers(1, 120),
            row_s=st.sampled_from([0.2, 5.0, 60.0]),
            load_s=st.sampled_from([1.0, 60.0, 300.0]),
        ),
        min_size=1,
        max_size=5,
    ),
    deaths=st.sampled_from([0.0, 0.0, 1.0]),
)
def test_every_row_of_every_model_ends_once_and_no_worker_goes_to_and_fro(
    seed: int, workers: int, models: list[SimulatedLane], deaths: float
) -> None:
    named = {LaneKey(str(number)): model for number, model in enumerate(models)}
    fleet = FaultyFleet(workers=workers, is_fresh=True, seed=seed, deaths_per_hour=deaths)
    simulated = SeveralLanes(named, fleet, window=16)
    outcome = simulated.run()
    gone = [row.row.row_id for row in outcome.given_up]
    ended = sorted([*outcome.done.elements(), *gone])
    assert ended == sorted(f"{name} {n}" for name, model in named.items() for n in range(model.num_rows))
    if not deaths:
        assert not gone
        assert all(loads <= workers for loads in simulated.num_loads.values())
        assert sum(simulated.num_loads.values()) <= workers * len(models)


@pytest.mark.parametrize("row_work", [(0.5, 30.0, 200.0), (1.0, 1.0, 1.0)], ids=["estimated", "unknown"])
def test_workers_load_each_model_once_where_it_is_known_how_rows_compare(row_work: tuple[float, ...]) -> None:
    rows = {"image": (10_000, 0.5, 30.0), "video": (1_000, 30.0, 120.0), "large": (150, 200.0, 300.0)}
    models = {
        LaneKey(name): SimulatedLane(num_rows=num_rows, row_s=row_s, load_s=load_s, row_work=work)
        for (name, (num_rows, row_s, load_s)), work in zip(rows.items(), row_work, strict=True)
    }
    simulated = SeveralLanes(models, FaultyFleet(workers=25, is_fresh=True, seed=3))
    outcome = simulated.run()
    ideal_s = sum(one.num_rows * one.row_s for one in models.values()) / 25
    is_known = row_work[0] < 1
    assert sum(simulated.num_loads.values()) <= (27 if is_known else 75)
    assert outcome.end_s < (1.25 if is_known else 1.4) * ideal_s
