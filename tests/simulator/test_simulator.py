"""Worlds that the simulator draws, and a fleet that grows."""

from __future__ import annotations

from framefleet.cluster.dispatch.dispatcher import Dispatcher
from framefleet.cluster.fleet.settings import ElasticWorkers
from tests.simulator.__main__ import check, check_small_world, table
from tests.simulator.faulty_fleet import FaultyFleet, FaultySimulation


def test_small_worlds_end_every_row_once() -> None:
    for seed in range(200):
        check_small_world(seed)


def test_an_elastic_fleet_grows_with_its_rows() -> None:
    elastic = ElasticWorkers(max=50, target_s=600)
    fleet = FaultyFleet(workers=50, elastic=elastic, is_fresh=True, seconds_per_row=30.0)
    outcome = FaultySimulation(Dispatcher(), table(3000), fleet, num_rows=3000).run()
    check(outcome, 3000)
    assert outcome.end_s < 3000 * 30 / 20  # no more than 20 workers' time, though it began with one
    assert outcome.useful_s > 0.9 * outcome.worker_s
