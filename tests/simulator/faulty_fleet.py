"""A simulated fleet with faults of every kind, and more that is counted."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from framefleet.cluster.dispatch.dispatcher import Dispatcher, Row
from framefleet.cluster.dispatch.faults import FaultPolicy, LossKind
from tests.simulator import simulation

MAX_ROWS = 8  # of a forward, for how long rows may come no further
MAX_STORING = 4  # clips of a worker on their way to the store: then it waits


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultyFleet(simulation.SimulatedFleet):
    """killers: rows whose worker dies as soon as it starts them. raisers: rows that always raise. refused:
    rows that raise what would be raised everywhere. hangers: rows that come no further. oversized: rows that
    run out of memory, alone in a new process too.

    tail: how unlike the seconds of rows are, the sigma of a log-normal distribution; 0 for those of one
    worker being within a half of each other.
    Cuts keep a worker from the driver, hangs last for ever, pauses end by themselves. outages: of the store,
    for all.
    """

    num_bad: int = 0  # of the machines: whatever is started there dies
    is_fresh: bool = False  # no machine has done a row yet, and `Hosts` says where workers are started again
    tail: float = 0.0
    silence_s: float = 12.0  # as `fleet.silence_s`
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
    refused: frozenset[str] = frozenset()
    hangers: frozenset[str] = frozenset()
    oversized: frozenset[str] = frozenset()

    def seconds_of(self, row_id: str, shape: str = "") -> float:
        """Return what a row takes on a worker that is not slow, where there is a tail."""
        draw = random.Random(f"{self.seed} {row_id}")
        mean_s = self.seconds.get(shape, self.seconds_per_row)
        return mean_s * draw.lognormvariate(-(self.tail**2) / 2, self.tail)


@dataclass(slots=True)
class FaultyRun(simulation.SimulatedRun):
    """What else is counted."""

    struck_alone: set[str] = field(default_factory=set)  # rows whose worker died by chance, holding only them
    num_held_most: int = 0  # rows the dispatcher remembered at once
    stale_counted: int = 0  # reports of dead workers that were taken for good
    idle_s: float = 0.0  # of all workers together
    is_stuck: bool = False  # no machine was left, so that the job ended with rows left
    unused: tuple[str, ...] = ()  # machines and workers that were given up


@dataclass(slots=True)
class _Worker(simulation.SimulatedWorker):
    """storing: when its clips will be stored."""

    cut_until: float = 0.0
    storing: list[float] = field(default_factory=list)


class FaultySimulation(simulation.Simulation):
    """One run. num_rows: of `rows`, for what is expected on the way; 0: nothing is."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        rows: Iterable[Row],
        fleet: FaultyFleet,
        *,
        faults: FaultPolicy | None = None,
        num_rows: int = 0,
    ) -> None:
        self._faults = faults or FaultPolicy()
        super().__init__(dispatcher, rows, fleet, faults=self._faults, num_rows=num_rows)
        self.fleet: FaultyFleet = fleet
        self.outcome: FaultyRun = FaultyRun()
        self._ghosts: list[tuple[str, str]] = []  # (dead worker, row in its hands), reported late
        self._outage = (0.0, self._next_s(fleet.outages_per_hour))  # the end of one, the begin of the next

    def run(self) -> FaultyRun:
        if not self.fleet.is_fresh:
            for machine in range(self._wanted):
                self._prove(machine)
        super().run()
        self.outcome.is_stuck = not self.dispatcher.finished
        self.outcome.unused = self._hosts.unused
        return self.outcome

    def _prove(self, machine: int) -> None:
        """Have the machine do a row that is not of the table."""
        self.dispatcher.add(Row(row_id="proof", shape="proof"))
        self.dispatcher.join("prover", at=(f"machine {machine}",))
        self.dispatcher.lease("prover", 0.0)
        self.dispatcher.done("prover", "proof", 0.0)
        self.dispatcher.lost("prover")

    def _new_worker(self, name: str, machine: int) -> _Worker:
        return _Worker(name, machine)

    def _rates(self) -> list[tuple[float, simulation.Action]]:
        fleet = self.fleet
        return [
            *super()._rates(),
            (fleet.cuts_per_hour, self._cut),
            (fleet.hangs_per_hour, self._hang),
            (fleet.pauses_per_hour, self._pause),
        ]

    def _ask(self, worker: Any, now: float) -> None:
        if now >= worker.cut_until:
            super()._ask(worker, now)
        num_held = self.dispatcher.num_waiting + self.dispatcher.num_leased
        self.outcome.num_held_most = max(self.outcome.num_held_most, num_held)

    def _begin(self, worker: Any, now: float) -> None:
        if len(worker.storing) >= MAX_STORING:
            self._wake(worker, min(worker.storing), self._go_on)
            return
        super()._begin(worker, now)
        if worker.row in self.fleet.hangers:
            self._hang(worker, now)

    def _rest(self, worker: Any, now: float) -> None:
        self.outcome.idle_s += simulation.IDLE_S
        super()._rest(worker, now)

    def _next_row(self, worker: Any) -> str:
        return next(iter(worker.rows)) if self.fleet.tail else super()._next_row(worker)

    def _seconds_of(self, worker: Any) -> float:
        """The same each time where there is a tail."""
        if not self.fleet.tail:
            return super()._seconds_of(worker)
        left, shape = self._left.get(worker.row, 1.0), worker.rows[worker.row].shape
        return float(left * self.fleet.seconds_of(worker.row, shape))

    def _end_row(self, worker: Any, now: float) -> None:
        """Let a late report of a dead worker come, too."""
        if self._ghosts and self._random.random() < 0.5:
            ghost, ghosts_row = self._ghosts.pop()
            self.outcome.stale_counted += self.dispatcher.done(ghost, ghosts_row, now)
        by_chance = self._random.random() < self.fleet.death_chance
        if worker.row in self.fleet.oversized:
            self._run_out(worker, now)
        elif worker.row in self.fleet.killers or by_chance or worker.machine < self.fleet.num_bad:
            self._lose(worker, now)
        else:
            super()._end_row(worker, now)

    def _run_out(self, worker: Any, now: float) -> None:
        """Its row lacks memory: it hands back the others, and its process is ended."""
        row_id = worker.row
        self._let_go(row_id, worker)
        given_up = self.dispatcher.ran_out(worker.name, row_id, MemoryError(row_id), room=0)
        if given_up:
            self._hosts.cleared(f"slot {worker.machine}")
            self._give_up([given_up], now)
        worker.row = ""
        self._lose(worker, now, kind="machine", suspects=())

    def _report(self, worker: Any, now: float, *, row_id: str, seconds: float) -> None:
        """Report the row once its clip is stored."""
        stored_at = max(self._stored_at(now), worker.cut_until)
        stored = partial(self._stored, row_id=row_id, seconds=seconds)
        worker.storing.append(stored_at)
        if stored_at <= now:
            stored(worker, stored_at)
        else:
            self._later(worker, stored_at, stored)

    def _stored_at(self, now: float) -> float:
        """Return when a clip is stored that is rendered now."""
        stored_at = now + self.fleet.store_s * self._random.uniform(0.5, 1.5)
        while stored_at > self._outage[1]:
            end = self._outage[1] + self._random.expovariate(1 / self.fleet.outage_s)
            self._outage = end, end + self._next_s(self.fleet.outages_per_hour)
        return max(stored_at, self._outage[0])

    def _stored(self, worker: Any, now: float, *, row_id: str, seconds: float) -> None:
        worker.storing.remove(now)
        is_held = row_id in worker.held
        is_refused, is_flaky = row_id in self.fleet.refused, self._random.random() < self.fleet.flaky_chance
        if is_held and (row_id in self.fleet.raisers or is_refused or is_flaky):
            self._let_go(row_id, worker)
            given_up = self.dispatcher.failed(worker.name, row_id, ValueError(row_id), retry=not is_refused)
            self._give_up([given_up] if given_up else [], now)
            return
        super()._report(worker, now, row_id=row_id, seconds=seconds)

    def _gone(self, worker: Any, now: float) -> None:
        if worker.storing:
            self._wake(worker, max(*worker.storing, now + simulation.IDLE_S), self._gone)
        else:
            super()._gone(worker, now)

    def _retire(self, worker: Any, now: float) -> None:
        if worker.storing:
            self._rest(worker, now)
        else:
            super()._retire(worker, now)

    def _cut(self, worker: Any, now: float) -> None:
        """Nobody hears of it for a while; it renders on."""
        cut_s = self._random.expovariate(1 / self.fleet.cut_s)
        worker.cut_until = now + cut_s
        if cut_s > self.fleet.silence_s:
            self._later(worker, now + self.fleet.silence_s, self._fall_silent)
        else:
            self._later(worker, worker.cut_until + self._next_s(self.fleet.cuts_per_hour), self._cut)

    def _fall_silent(self, worker: Any, now: float) -> None:
        self._lose(worker, now, kind="silent")

    def _hang(self, worker: Any, now: float) -> None:
        self._stand_still(worker, now, float("inf"))

    def _pause(self, worker: Any, now: float) -> None:
        self._later(worker, now + self._next_s(self.fleet.pauses_per_hour), self._pause)
        self._stand_still(worker, now, self._random.expovariate(1 / self.fleet.pause_s))

    def _stand_still(self, worker: Any, now: float, seconds: float) -> None:
        """Its row comes no further for this long, and the driver ends it where that is too long."""
        if not worker.row:
            return
        pace = self.dispatcher.seconds_per_row(worker.name, [worker.row])
        longest_s = self._faults.longest_still_s(pace, num_rows=MAX_ROWS)
        if seconds > longest_s:
            self._wake(worker, now + longest_s, partial(self._lose, suspects=[worker.row]))
        else:
            worker.seconds += seconds
            self._wake(worker, worker.began + worker.seconds, self._end_row)

    def _lose(
        self, worker: Any, now: float, *, kind: LossKind = "died", suspects: Collection[str] | None = None
    ) -> None:
        if len(worker.held) == 1:
            self.outcome.struck_alone |= worker.held
        self._ghosts += [(worker.name, row_id) for row_id in sorted(worker.held)]
        super()._lose(worker, now, kind=kind, suspects=suspects)

    def _replace(
        self, worker: Any, now: float, kind: LossKind, rows: Collection[str], given_up: Collection[str]
    ) -> None:
        if kind == "silent":
            now = max(now, worker.cut_until)  # when its machine can be reached again
        if self.fleet.is_fresh:
            super()._replace(worker, now, kind, rows, given_up)
        else:
            self._start(worker.machine, at=now + self.fleet.start_s)
