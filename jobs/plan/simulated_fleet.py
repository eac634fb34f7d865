"""A fleet in numbers: how long rows take, and how often what fails; and what became of a table on it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from framefleet.cluster.dispatch.dispatcher import GivenUp
from framefleet.cluster.fleet.settings import ElasticWorkers


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedFleet:
    """killers: rows whose worker dies as soon as it starts them. raisers: rows that always raise.

    seconds: of a row, by shape; of other shapes `seconds_per_row`. tail: how unlike these are, the sigma of a
    log-normal distribution; 0 for those of one worker being within a half of each other.
    What is by the hour is of each worker: drains hand rows back before the worker goes, cuts keep it from the
    driver, hangs last for ever, pauses end by themselves. outages: of the store, for all.
    """

    workers: int  # each on a machine of its own
    elastic: ElasticWorkers | None = None  # then as many as the rows left need, beginning with its least
    num_bad: int = 0  # of the machines: whatever is started there dies
    is_fresh: bool = False  # no machine has done a row yet, and `Hosts` says where workers are started again
    seed: int = 0
    seconds_per_row: float = 1.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    tail: float = 0.0
    slow_share: float = 0.0  # of the workers, ten times slower
    max_rows: int = 8  # of a forward, for how long rows may come no further
    start_s: float = 30.0  # a new worker in the place of a dead one
    silence_s: float = 12.0  # as `fleet.silence_s`
    deaths_per_hour: float = 0.0
    drains_per_hour: float = 0.0
    cuts_per_hour: float = 0.0
    cut_s: float = 30.0  # in the mean, as what follows
    hangs_per_hour: float = 0.0
    pauses_per_hour: float = 0.0
    pause_s: float = 20.0
    store_s: float = 0.0  # from a rendered row to its report, while the next one is rendered
    outages_per_hour: float = 0.0
    outage_s: float = 60.0
    death_chance: float = 0.0  # per row ended
    flaky_chance: float = 0.0  # per row ended: raises now, would not elsewhere
    killers: frozenset[str] = frozenset()
    raisers: frozenset[str] = frozenset()

    def seconds_of(self, row_id: str, shape: str = "") -> float:
        """Return what a row takes on a worker that is not slow, where there is a tail."""
        draw = random.Random(f"{self.seed} {row_id}")
        mean_s = self.seconds.get(shape, self.seconds_per_row)
        return mean_s * draw.lognormvariate(-(self.tail**2) / 2, self.tail)


@dataclass(slots=True)
class SimulatedRun:
    """What became of the rows, and of the time."""

    done: Counter[str] = field(default_factory=Counter)
    given_up: list[GivenUp] = field(default_factory=list)
    leased: Counter[str] = field(default_factory=Counter)
    struck_alone: set[str] = field(default_factory=set)  # rows whose worker died by chance, holding only them
    num_leases: int = 0
    num_held_most: int = 0  # rows the dispatcher remembered at once
    num_ended: int = 0  # workers that were well, and were ended for being silent or still
    stale_counted: int = 0  # reports of dead workers that were taken for good
    idle_s: float = 0.0  # of all workers together
    useful_s: float = 0.0  # spent on rows that were done, by all workers together
    wasted_s: float = 0.0  # spent on rows that were not done there
    worker_s: float = 0.0  # of all workers, since they joined
    longest_s: float = 0.0  # of one row
    dispatch_s: float = 0.0  # of the processor, in the dispatcher
    ends: list[float] = field(default_factory=list)  # when each row was done
    expected: list[tuple[float, float]] = field(default_factory=list)  # when the end was expected, and which
    end_s: float = 0.0
    is_stuck: bool = False  # no machine was left, so that the job ended with rows left
    unused: tuple[str, ...] = ()  # machines and workers that were given up
