"""From a prediction to the same job where workers fail: in virtual time, by the driver's own rules."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from framefleet.cluster.dispatch.dispatcher import Dispatcher, LeaseSize, Row
from framefleet.cluster.dispatch.lease import Paces
from framefleet.cluster.dispatch.order import Longest
from framefleet.cluster.driver.ranks import LONGEST
from framefleet.jobs.job.schema import Job
from framefleet.jobs.plan.prediction import ENDING_S, Prediction
from framefleet.jobs.plan.simulation import SimulatedFleet, Simulation

SIMULATED_ROWS = 200_000  # half a minute; more rows are taken to end as fast as these did in their middle
STARTS_S = 30.0  # a process in the place of another, before it loads its model


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRates:
    """How often each worker fails in an hour. deaths: at once; drains: with notice, as of spot machines."""

    deaths: float = 0.0
    drains: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedJob:
    """What a job took in virtual time. elapsed_s: from the command to its end, as predicted without faults.

    lost: the share of work that was not of use, as its worker failed or another one was quicker. num_again:
    rows that a second worker got. num_given_up: rows that failed though nothing is wrong with them: they
    were alone on workers that died. worker_s: of all workers. cost: None without a price.
    """

    elapsed_s: float
    num_simulated: int
    lost: float
    num_again: int
    num_given_up: int
    worker_s: float
    cost: float | None


def simulate_job(found: Prediction, job: Job, rates: FaultRates, *, max_rows: int) -> SimulatedJob:
    """max_rows: of a forward."""
    num_rows = min(found.num_rows, SIMULATED_ROWS)
    seconds = found.seconds_per_row
    fleet = SimulatedFleet(
        workers=found.num_workers,
        elastic=job.fleet.elastic,
        seconds=seconds,
        start_s=STARTS_S + found.load_s,
        deaths_per_hour=rates.deaths,
        drains_per_hour=rates.drains,
    )
    size, paces = LeaseSize.of_forwards(max_rows), Paces()
    order = Longest(paces) if job.order == LONGEST else None
    dispatcher = Dispatcher(job.retries, size=size, order=order, paces=paces)
    rows = _rows(found, seconds, num_rows)
    outcome = Simulation(dispatcher, rows, fleet, faults=job.retries, num_rows=num_rows).run()
    times = found.num_rows / num_rows
    worker_s = outcome.worker_s * times + found.worker_s - found.rows_s
    return SimulatedJob(
        elapsed_s=found.start_s + outcome.end_s + _rest_s(outcome.ends, found.num_rows - num_rows) + ENDING_S,
        num_simulated=num_rows,
        lost=outcome.wasted_s / (outcome.wasted_s + outcome.useful_s),
        num_again=round(sum(count - 1 for count in outcome.leased.values()) * times),
        num_given_up=round(len(outcome.given_up) * times),
        worker_s=worker_s,
        cost=None if found.cost is None else found.cost * (worker_s / found.worker_s),
    )


def _rows(found: Prediction, seconds: dict[str, float], num_rows: int) -> Iterator[Row]:
    names, counts = list(seconds), [kind.num_rows for kind in found.kinds]
    for number, name in enumerate(random.Random(0).choices(names, counts, k=num_rows)):
        yield Row(row_id=str(number), shape=name, rank=seconds[name])


def _rest_s(ends: Sequence[float], num_more: int) -> float:
    """Return how long more rows take, as the second and the third quarter of these did."""
    quarter = len(ends) // 4
    return num_more * (ends[3 * quarter] - ends[quarter]) / (2 * quarter) if quarter else 0.0
