"""Faults of one lane cost no row of another: whole fleets in virtual time."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from framefleet.pipeline.rows.identity import LaneKey
from tests.long import examples
from tests.simulator.faulty_fleet import FaultyFleet
from tests.simulator.faulty_lanes import FaultyLanes
from tests.simulator.several_lanes import SimulatedLane

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
