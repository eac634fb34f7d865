"""Print what becomes of a table on a fleet, in virtual time: `python -m tests.simulator --help`.

Repeats for the same seed. `--worlds N` draws N small worlds instead, with faults of every kind, and stops at
the first in which a row ends twice or not at all, or is given up without a fault of its own.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from framefleet.cluster.dispatch.dispatcher import Dispatcher, LeaseSize, Row
from framefleet.cluster.dispatch.faults import FaultPolicy
from framefleet.cluster.dispatch.lease import Paces
from framefleet.cluster.dispatch.order import Longest
from framefleet.cluster.fleet.settings import ElasticWorkers
from framefleet.pipeline.rows.identity import LaneKey
from tests.simulator.faulty_fleet import FaultyFleet, FaultyRun, FaultySimulation
from tests.simulator.several_lanes import SeveralLanes, SimulatedLane

MACHINES_PER_SICK = 10  # one machine in so many is sick, with `--sick`
RATES = {
    "deaths": "processes that die",
    "drains": "machines that go with notice",
    "cuts": "links that are cut",
    "hangs": "rows that come no further",
    "pauses": "rows that come no further for a while",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=1000, help="how many, each on a machine of its own")
    parser.add_argument("--elastic", type=float, metavar="S", help="from one on, as S seconds of rows need")
    parser.add_argument("--rows", type=int, default=100_000, help="of the table, in three shapes")
    parser.add_argument("--seconds", type=float, default=60.0, help="that a row takes in the mean")
    parser.add_argument("--tail", type=float, default=0.0, help="sigma of the log of the seconds of a row")
    for name, what in RATES.items():
        parser.add_argument(f"--{name}", type=float, default=0.0, help=f"{what}, of each worker in an hour")
    parser.add_argument("--cut-s", type=float, default=30.0, help="that a cut lasts, in the mean")
    parser.add_argument("--pause-s", type=float, default=20.0, help="that a pause lasts, in the mean")
    parser.add_argument("--store-s", type=float, default=0.0, help="that a clip takes to be stored")
    parser.add_argument("--outages", type=float, default=0.0, help="of the store, of a minute, in an hour")
    parser.add_argument("--killers", type=int, default=0, help="rows whose workers die")
    parser.add_argument("--sick", action="store_true", help="on one machine in ten every process dies")
    parser.add_argument("--slow", type=float, default=0.0, help="share of workers that are ten times slower")
    parser.add_argument("--longest", action="store_true", help="`order: longest`, with a tail that is known")
    parser.add_argument("--no-copies", action="store_true", help="of rows under way when no row waits")
    parser.add_argument("--worker-deaths", type=int, default=3, help="as `retries.worker_deaths`")
    parser.add_argument("--silence-s", type=float, default=12.0, help="as `fleet.silence_s`")
    parser.add_argument("--stall-s", type=float, help="in place of what is known of rows, and of 30 minutes")
    parser.add_argument("--models", action="store_true", help="rows of three models, which workers load")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worlds", type=int, help="draw so many small worlds, from this seed on")
    options = parser.parse_args()
    if options.worlds:
        for seed in range(options.seed, options.seed + options.worlds):
            check_small_world(seed)
        print(f"{options.worlds:,} worlds, seeds {options.seed} to {seed}: every row ended once")
        return
    for line in simulated(options):
        print(line)


def simulated(options: argparse.Namespace) -> Iterator[str]:
    """Yield what becomes of a table on a fleet."""
    num_rows, num_killers = options.rows, options.killers
    fleet = FaultyFleet(
        workers=options.workers,
        elastic=ElasticWorkers(max=options.workers, target_s=options.elastic) if options.elastic else None,
        num_bad=options.workers // MACHINES_PER_SICK if options.sick else 0,
        is_fresh=True,
        seed=options.seed,
        seconds_per_row=options.seconds,
        tail=options.tail,
        slow_share=options.slow,
        silence_s=options.silence_s,
        cut_s=options.cut_s,
        pause_s=options.pause_s,
        store_s=options.store_s,
        outages_per_hour=options.outages,
        killers=frozenset(str(n * num_rows // num_killers) for n in range(num_killers)),
        **{f"{name}_per_hour": getattr(options, name) for name in RATES},
    )
    faults = FaultPolicy(copies=not options.no_copies, worker_deaths=options.worker_deaths)
    if options.stall_s:
        faults = Stalled(**faults.model_dump() | {"stall_s": options.stall_s})
    if options.models:
        yield from of_several_models(num_rows, fleet, faults)
        return
    paces = Paces()
    order = Longest(paces) if options.longest else None
    rows = (replace(row, rank=fleet.seconds_of(row.row_id)) for row in table(num_rows))
    dispatcher = Dispatcher(faults, order=order, paces=paces)
    outcome = FaultySimulation(dispatcher, rows, fleet, faults=faults, num_rows=num_rows).run()
    check(outcome, num_rows, killers=fleet.killers, others_may_fail=True)
    yield from told(outcome, fleet, num_rows)


class Stalled(FaultPolicy):
    """Rows may come no further for `stall_s`, whatever is known of them."""

    def longest_still_s(self, seconds_per_row: float | None, *, num_rows: int) -> float:
        return self.stall_s


def of_several_models(num_rows: int, fleet: FaultyFleet, faults: FaultPolicy) -> Iterator[str]:
    """Yield what becomes of rows of three models, of which each takes a third of the work."""
    kinds = {"image": (0.5, 30.0), "video": (30.0, 120.0), "large": (200.0, 300.0)}  # seconds: a row, loading
    whole_s = num_rows / sum(1 / row_s for row_s, _ in kinds.values())
    models = {
        LaneKey(name): SimulatedLane(num_rows=round(whole_s / row_s), row_s=row_s, load_s=load_s)
        for name, (row_s, load_s) in kinds.items()
    }
    simulation = SeveralLanes(models, fleet, faults=faults)
    outcome = simulation.run()
    yield from told(outcome, fleet, sum(one.num_rows for one in models.values()))
    loads = ", ".join(f"{name} {num}" for name, num in simulation.num_loads.items())
    share = simulation.load_s / (fleet.workers * outcome.end_s)
    yield f"loads         {loads}: {share:.2%} of the workers' time"


def table(num_rows: int) -> Iterable[Row]:
    return (Row(row_id=str(n), shape=str(n * n % 7 % 3)) for n in range(num_rows))


def told(outcome: FaultyRun, fleet: FaultyFleet, num_rows: int) -> Iterator[str]:
    """Yield what a fleet took, compared with workers that never rest and waste nothing."""
    ideal_s = outcome.useful_s / (fleet.workers - fleet.num_bad)
    spent_s = outcome.useful_s + outcome.wasted_s
    num_again = sum(count - 1 for count in outcome.leased.values())
    above = outcome.end_s / ideal_s - 1
    yield f"makespan      {outcome.end_s:,.0f} s, {above:.1%} above the ideal {ideal_s:,.0f} s"
    almost_s = outcome.ends[round(len(outcome.ends) * 0.999) - 1]
    yield f"99.9 % ended  after {almost_s:,.0f} s"
    yield f"longest row   {outcome.longest_s:,.0f} s: no order of rows ends before that"
    yield f"wasted work   {outcome.wasted_s / spent_s:.2%}; {outcome.num_ended:,} sound workers were ended"
    yield f"of workers    {outcome.useful_s / outcome.worker_s:.1%} of their time was of use"
    yield f"leased again  {num_again:,} of {num_rows:,} rows"
    gone = {given_up.row.row_id for given_up in outcome.given_up}
    good, machines = len(gone - fleet.killers), len(outcome.unused)
    yield f"given up      {len(gone):,} rows, {good:,} of them good; {machines:,} machines"
    halfway = [end for at, end in outcome.expected if at >= outcome.end_s / 2]
    if halfway:
        yield f"expected      halfway, {halfway[0] / outcome.end_s - 1:+.1%} from the end that came"
    cores = outcome.dispatch_s / outcome.end_s
    yield f"dispatcher    {outcome.dispatch_s / num_rows * 1e6:.0f} us for each row; {cores:.4f} cores"
    yield f"remembered    {outcome.num_held_most:,} rows at most"


def check_small_world(seed: int) -> None:
    """Draw a small world and run it. Raises AssertionError, which names the seed."""
    draw = random.Random(seed)
    num_rows, workers = draw.randint(3, 60), draw.randint(1, 8)
    killers = frozenset(draw.sample([str(n) for n in range(num_rows)], draw.choice([0, 0, 1, 2])))
    seconds = draw.choice([0.1, 5.0, 300.0])
    rates = {f"{name}_per_hour": draw.choice([0.0, 0.0, min(60.0, 200 / seconds)]) for name in RATES}
    fleet = FaultyFleet(
        workers=workers,
        elastic=draw.choice([None, None, ElasticWorkers(max=workers, target_s=seconds * 5)]),
        num_bad=draw.choice([0, 0, 1, workers // 2]) if workers > 1 else 0,
        is_fresh=True,
        seed=seed,
        seconds_per_row=seconds,
        tail=draw.choice([0.0, 0.5, 1.5]),
        store_s=draw.choice([0.0, seconds / 10, seconds * 2]),
        outages_per_hour=draw.choice([0.0, 0.0, 20.0]),
        cut_s=draw.choice([2.0, 30.0]),
        killers=killers,
        **rates,
    )
    size = LeaseSize(min_rows=draw.randint(1, 8), max_rows=16)
    dispatcher = Dispatcher(window=draw.randint(1, 60), size=size)
    outcome = FaultySimulation(dispatcher, table(num_rows), fleet, num_rows=num_rows).run()
    try:
        assert not outcome.is_stuck or len(outcome.unused) >= (1 if fleet.elastic else workers), "it is stuck"
        by_chance = fleet.deaths_per_hour + fleet.cuts_per_hour + fleet.hangs_per_hour + fleet.pauses_per_hour
        check(
            outcome,
            num_rows,
            killers=killers,
            others_may_fail=by_chance > 0,
            machines_may_fail=by_chance > 0 or fleet.elastic is not None,  # the first ones may all be bad
        )
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error


def check(
    outcome: FaultyRun,
    num_rows: int,
    *,
    killers: frozenset[str] = frozenset(),
    others_may_fail: bool = False,
    machines_may_fail: bool = False,
) -> None:
    """Raise AssertionError unless each row ended once, and none was given up but killers.

    Killers may be left where no machine is, and no other row, unless machines_may_fail. others_may_fail:
    those whose worker was lost by chance while they were alone with it may be given up, too.
    """
    gone = [given_up.row.row_id for given_up in outcome.given_up]
    ended = Counter([*outcome.done.elements(), *gone])
    expected = {str(n) for n in range(num_rows)}
    assert not [row_id for row_id, count in ended.items() if count > 1], "a row ended twice"
    left = expected - ended.keys()
    may_be_left = outcome.is_stuck and (machines_may_fail or left <= killers)
    assert not left or may_be_left, f"these rows did not end: {left}"
    guilty = killers | outcome.struck_alone if others_may_fail else killers
    assert set(gone) <= guilty, f"given up without a fault of their own: {set(gone) - guilty}"
    assert not outcome.stale_counted, "a late report of a dead worker counted"


if __name__ == "__main__":
    main()
