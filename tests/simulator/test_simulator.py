"""The simulator's own command, small, and worlds that it draws."""

from __future__ import annotations

import re

import pytest

from framefleet.cluster.dispatch.dispatcher import Dispatcher
from framefleet.cluster.fleet.settings import ElasticWorkers
from framefleet.jobs.job.schema import Job
from framefleet.jobs.plan import simulated_job
from framefleet.jobs.plan.prediction import Prediction, Took, Tried, predict
from framefleet.jobs.plan.simulated_job import FaultRates, simulate_job
from tests.simulator.__main__ import check, check_small_world, main, table
from tests.simulator.faulty_fleet import FaultyFleet, FaultySimulation

JOB = Job.model_validate({"table": "unused.csv", "output": "unused", "model": "unused"})


def test_small_worlds_end_every_row_once() -> None:
    for seed in range(200):
        check_small_world(seed)


@pytest.mark.ci
def test_thousands_of_small_worlds_end_every_row_once() -> None:
    for seed in range(200, 3200):
        check_small_world(seed)


@pytest.mark.parametrize(
    "faults", [[], ["--tail", "0.5", "--deaths", "0.01", "--sick"]], ids=["no faults", "faults"]
)
def test_a_fleet_is_compared_with_one_that_never_rests(
    faults: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--workers", "50", "--rows", "5000"]
    monkeypatch.setattr("sys.argv", ["simulator", *few, *faults])
    main()
    said = capsys.readouterr().out
    above = re.search(r"([\d.]+)% above the ideal", said)
    assert above and float(above[1]) < 20  # of virtual time: the same on every machine
    assert f"given up      0 rows, 0 of them good; {5 if faults else 0} machines" in said


def predicted(num_rows: int) -> Prediction:
    """Two kinds of rows on 20 workers, which take a minute and two."""
    nothing = Took()
    kinds = [
        Tried(
            name=name,
            num_rows=num_rows // 2,
            render=Took(wall_s=seconds),
            write=nothing,
            once=nothing,
            text=nothing,
            num_bytes=1.0,
            mean_batch=1.0,
            num_rendered=2,
        )
        for name, seconds in (("short", 60.0), ("long", 120.0))
    ]
    return predict(
        kinds,
        num_rows=num_rows,
        num_texts=0,
        load=Took(wall_s=100.0),
        starting_s=10.0,
        num_workers=20,
        num_cores=20,
        price=2.0,
    )


def test_a_job_without_faults_takes_what_is_predicted_and_more_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simulated_job, "SIMULATED_ROWS", 8000)
    found = predicted(20_000)
    plain, faulty, drained = (
        simulate_job(found, JOB, rates, max_rows=1)
        for rates in (FaultRates(), FaultRates(deaths=2), FaultRates(drains=2))
    )
    assert plain.elapsed_s == pytest.approx(found.elapsed_s, rel=0.05)
    assert plain.cost == pytest.approx(found.cost, rel=0.05)
    assert plain.lost < 0.002 and (plain.num_simulated, plain.num_given_up) == (8000, 0)
    assert faulty.elapsed_s > 1.03 * plain.elapsed_s and 0.01 < faulty.lost < 0.1
    assert drained.elapsed_s < faulty.elapsed_s and drained.lost < 0.002 and drained.num_again > 1000


def test_an_elastic_fleet_grows_with_its_rows() -> None:
    elastic = ElasticWorkers(max=50, target_s=600)
    fleet = FaultyFleet(workers=50, elastic=elastic, is_fresh=True, seconds_per_row=30.0)
    outcome = FaultySimulation(Dispatcher(), table(3000), fleet, num_rows=3000).run()
    check(outcome, 3000)
    assert outcome.end_s < 3000 * 30 / 20  # no more than 20 workers' time, though it began with one
    assert outcome.useful_s > 0.9 * outcome.worker_s
