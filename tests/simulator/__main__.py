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
from framefleet.cluster.dispatch.fault_policy import FaultPolicy
from framefleet.cluster.dispatch.order import Ranked
from tests.simulator.simulation import Fleet, Outcome, Simulation

MACHINES_PER_SICK = 10  # one machine in so many is sick, with `--sick`


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=1000, help="how many, each on a machine of its own")
    parser.add_argument("--rows", type=int, default=100_000, help="of the table, in three shapes")
    parser.add_argument("--seconds", type=float, default=60.0, help="that a row takes in the mean")
    parser.add_argument("--tail", type=float, default=0.0, help="sigma of the log of the seconds of a row")
    parser.add_argument("--deaths", type=float, default=0.0, help="of each worker in an hour")
    parser.add_argument("--sick", action="store_true", help="on one machine in ten every process dies")
    parser.add_argument("--slow", type=float, default=0.0, help="share of workers that are ten times slower")
    parser.add_argument("--longest", action="store_true", help="`order: longest`, with a tail that is known")
    parser.add_argument("--no-copies", action="store_true", help="of rows under way when no row waits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worlds", type=int, help="draw so many small worlds, from this seed on")
    options = parser.parse_args()
    if options.worlds:
        for seed in range(options.seed, options.seed + options.worlds):
            check_small_world(seed)
        print(f"{options.worlds:,} worlds, seeds {options.seed} to {seed}: every row ended once")
        return
    fleet = Fleet(
        workers=options.workers,
        num_bad=options.workers // MACHINES_PER_SICK if options.sick else 0,
        is_fresh=True,
        seed=options.seed,
        seconds_per_row=options.seconds,
        tail=options.tail,
        deaths_per_hour=options.deaths,
        slow_share=options.slow,
    )
    order = Ranked() if options.longest else None
    dispatcher = Dispatcher(FaultPolicy(copies=not options.no_copies), order=order)
    rows = (replace(row, rank=fleet.seconds_of(row.row_id)) for row in table(options.rows))
    outcome = Simulation(dispatcher, rows, fleet).run()
    check(outcome, options.rows)
    for line in told(outcome, fleet, options.rows):
        print(line)


def table(num_rows: int) -> Iterable[Row]:
    return (Row(row_id=str(n), shape=str(n * n % 7 % 3)) for n in range(num_rows))


def told(outcome: Outcome, fleet: Fleet, num_rows: int) -> Iterator[str]:
    """Yield what a fleet took, compared with workers that never rest and waste nothing."""
    ideal_s = outcome.useful_s / (fleet.workers - fleet.num_bad)
    spent_s = outcome.useful_s + outcome.wasted_s
    num_again = sum(count - 1 for count in outcome.leased.values())
    above = outcome.end_s / ideal_s - 1
    yield f"makespan      {outcome.end_s:,.0f} s, {above:.1%} above the ideal {ideal_s:,.0f} s"
    almost_s = outcome.ends[round(len(outcome.ends) * 0.999) - 1]
    yield f"99.9 % ended  after {almost_s:,.0f} s"
    yield f"longest row   {outcome.longest_s:,.0f} s: no order of rows ends before that"
    yield f"wasted work   {outcome.wasted_s / spent_s:.2%}"
    yield f"leased again  {num_again:,} of {num_rows:,} rows"
    yield f"given up      {len(outcome.given_up):,} rows, {len(outcome.unused):,} machines"
    cores = outcome.dispatch_s / outcome.end_s
    yield f"dispatcher    {outcome.dispatch_s / num_rows * 1e6:.0f} us for each row; {cores:.4f} cores"
    yield f"remembered    {outcome.num_held_most:,} rows at most"


def check_small_world(seed: int) -> None:
    """Draw a small world and run it. Raises AssertionError, which names the seed."""
    draw = random.Random(seed)
    num_rows, workers = draw.randint(3, 60), draw.randint(1, 8)
    killers = frozenset(draw.sample([str(n) for n in range(num_rows)], draw.choice([0, 0, 1, 2])))
    fleet = Fleet(
        workers=workers,
        num_bad=draw.choice([0, 0, 1, workers // 2]) if workers > 1 else 0,
        is_fresh=True,
        seed=seed,
        seconds_per_row=draw.choice([0.1, 5.0, 300.0]),
        tail=draw.choice([0.0, 0.5, 1.5]),
        killers=killers,
    )
    size = LeaseSize(min_rows=draw.randint(1, 8), max_rows=16)
    outcome = Simulation(Dispatcher(window=draw.randint(1, 60), size=size), table(num_rows), fleet).run()
    try:
        check(outcome, num_rows, killers=killers, has_ended=len(outcome.unused) < workers)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error


def check(
    outcome: Outcome, num_rows: int, *, killers: frozenset[str] = frozenset(), has_ended: bool = True
) -> None:
    """Raise AssertionError unless each row ended once, and none was given up but killers.

    has_ended: killers may be left where no machine is, and no other row.
    """
    gone = [given_up.row.row_id for given_up in outcome.given_up]
    ended = Counter([*outcome.done.elements(), *gone])
    expected = {str(n) for n in range(num_rows)}
    assert not [row_id for row_id, count in ended.items() if count > 1], "a row ended twice"
    left = expected - ended.keys()
    assert left <= (frozenset() if has_ended else killers), f"these rows did not end: {left}"
    assert set(gone) <= killers, f"given up without a fault of their own: {set(gone) - killers}"
    assert not outcome.stale_counted, "a late report of a dead worker counted"


if __name__ == "__main__":
    main()
