"""Draw small worlds, faulty fleets in virtual time: `python -m tests.simulator --worlds N`.

Stops at the first in which a row ends twice or not at all, or is given up without a fault of its own.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterable

from framefleet.cluster.dispatch.dispatcher import Dispatcher, LeaseSize, Row
from framefleet.cluster.fleet.settings import ElasticWorkers
from tests.simulator.faulty_fleet import FaultyFleet, FaultyRun, FaultySimulation

RATES = ("deaths", "drains", "cuts", "hangs", "pauses")  # of each worker in an hour


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worlds", type=int, default=1000, help="draw so many, from this seed on")
    options = parser.parse_args()
    for seed in range(options.seed, options.seed + options.worlds):
        check_small_world(seed)
    print(f"{options.worlds:,} worlds, seeds {options.seed} to {seed}: every row ended once")


def table(num_rows: int) -> Iterable[Row]:
    return (Row(row_id=str(n), shape=str(n * n % 7 % 3)) for n in range(num_rows))


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
