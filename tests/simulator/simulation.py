"""A fleet in virtual time: rows go in, and what became of each comes out. Any size, no process, no sleep.

Every choice is drawn from one seeded generator: which of its rows a worker ends next, who dies, who is slow.
"""

from __future__ import annotations

import heapq
import math
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from framefleet.cluster.dispatch.dispatcher import Dispatcher, GivenUp, Row
from framefleet.cluster.dispatch.fault_policy import FaultPolicy
from framefleet.cluster.dispatch.hosts import Hosts

IDLE_S = 1.0  # a worker that got nothing asks again after so long
HEARS_S = 1.0  # a worker that is to leave a row hears of it after so long
START_S = 30.0  # a new worker in the place of a dead one


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """killers: rows whose worker dies as soon as it starts them. raisers: rows that always raise.

    tail: how unlike the seconds of rows are, the sigma of a log-normal distribution around
    `seconds_per_row`; 0 for those of one worker being within a half of each other.
    """

    workers: int  # each on a machine of its own
    num_bad: int = 0  # of the machines: whatever is started there dies
    is_fresh: bool = False  # no machine has done a row yet, and `Hosts` says where workers are started again
    seed: int = 0
    seconds_per_row: float = 1.0
    tail: float = 0.0
    deaths_per_hour: float = 0.0  # of each worker, while it renders
    slow_share: float = 0.0  # of the workers, ten times slower
    death_chance: float = 0.0  # per row ended
    flaky_chance: float = 0.0  # per row ended: raises now, would not elsewhere
    killers: frozenset[str] = frozenset()
    raisers: frozenset[str] = frozenset()

    def seconds_of(self, row_id: str) -> float:
        """Return what a row takes on a worker that is not slow, where there is a tail."""
        draw = random.Random(f"{self.seed} {row_id}")
        return self.seconds_per_row * draw.lognormvariate(-(self.tail**2) / 2, self.tail)


@dataclass(slots=True)
class Outcome:
    done: Counter[str] = field(default_factory=Counter)
    given_up: list[GivenUp] = field(default_factory=list)
    leased: Counter[str] = field(default_factory=Counter)
    struck_alone: set[str] = field(default_factory=set)  # rows whose worker died by chance, holding only them
    num_leases: int = 0
    num_held_most: int = 0  # rows the dispatcher remembered at once
    stale_counted: int = 0  # reports of dead workers that were taken for good
    idle_s: float = 0.0  # of all workers together
    useful_s: float = 0.0  # spent on rows that were done, by all workers together
    wasted_s: float = 0.0  # spent on rows that were not done there
    longest_s: float = 0.0  # of one row
    dispatch_s: float = 0.0  # of the processor, in the dispatcher
    ends: list[float] = field(default_factory=list)  # when each row was done
    end_s: float = 0.0
    unused: tuple[str, ...] = ()  # machines and workers that were given up


@dataclass(slots=True)
class _Worker:
    name: str
    machine: int
    slowness: float
    joined: bool = False
    rows: list[str] = field(default_factory=list)
    row: str = ""  # which of them it renders
    seconds: float = 0.0  # that this takes
    began: float = 0.0
    turn: int = 0  # counts its events: those before the last are void


class _Timed:
    """A dispatcher that counts the seconds spent in its methods."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher, self.seconds = dispatcher, 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._dispatcher, name)
        return self._timed(found) if callable(found) else found

    def _timed(self, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        return call


class Simulation:
    def __init__(self, dispatcher: Dispatcher, rows: Iterable[Row], fleet: Fleet) -> None:
        self.dispatcher: Any = _Timed(dispatcher)
        self.fleet, self.outcome = fleet, Outcome()
        self._rows: Iterator[Row] = iter(rows)
        self._random = random.Random(fleet.seed)
        self._events: list[tuple[float, int, _Worker, int]] = []  # (when, tie-breaker, who acts, its turn)
        self._workers: dict[str, _Worker] = {}  # that have joined and live
        self._started = 0
        self._holders: dict[str, set[str]] = {}  # row_id: who may have it, the second a copy
        self._ghosts: list[tuple[str, str]] = []  # (dead worker, row in its hands), reported late
        self._hosts = Hosts(FaultPolicy())

    def run(self) -> Outcome:
        for machine in range(self.fleet.workers):
            if not self.fleet.is_fresh:
                self._prove(machine)
            self._start(machine, at=self._random.random())
        while not self.dispatcher.finished and self._events:
            now, _, worker, turn = heapq.heappop(self._events)
            if turn != worker.turn:
                continue
            self._fill_window()
            self._act(worker, now)
            self.outcome.end_s = now
        self.outcome.unused = self._hosts.unused
        self.outcome.dispatch_s = self.dispatcher.seconds
        return self.outcome

    def _prove(self, machine: int) -> None:
        """Have the machine do a row that is not of the table."""
        self.dispatcher.add(Row(row_id="proof", shape="proof"))
        self.dispatcher.join("prover", at=(f"machine {machine}",))
        self.dispatcher.lease("prover", 0.0)
        self.dispatcher.done("prover", "proof", 0.0)
        self.dispatcher.lost("prover")

    def _start(self, machine: int, *, at: float) -> None:
        self._started += 1
        slow = self._random.random() < self.fleet.slow_share
        self._wake(_Worker(f"w{self._started}", machine, 10.0 if slow else 1.0), at)

    def _wake(self, worker: _Worker, when: float) -> None:
        worker.turn += 1
        heapq.heappush(self._events, (when, self._random.getrandbits(60), worker, worker.turn))

    def _fill_window(self) -> None:
        while self.dispatcher.room:
            row = next(self._rows, None)
            if row is None:
                self.dispatcher.close()
                return
            self.dispatcher.add(row)

    def _act(self, worker: _Worker, now: float) -> None:
        if not worker.joined:
            self.dispatcher.join(worker.name, at=(f"machine {worker.machine}", f"slot {worker.machine}"))
            self._hosts.placed(f"slot {worker.machine}", f"machine {worker.machine}", str(worker.machine))
            worker.joined = True
            self._workers[worker.name] = worker
        if worker.row and not self._end_a_row(worker, now):
            return
        while lease := self.dispatcher.lease(worker.name, now):
            self.outcome.num_leases += 1
            for leased in lease.rows:
                row_id = leased.row.row_id
                self._hold(row_id, worker.name)
                worker.rows.append(row_id)
        counts = self.dispatcher.counts
        self.outcome.num_held_most = max(self.outcome.num_held_most, counts.waiting + counts.leased)
        self.outcome.idle_s += 0.0 if worker.rows else IDLE_S
        if worker.rows:
            worker.row = worker.rows[0] if self.fleet.tail else self._random.choice(worker.rows)
            worker.seconds, worker.began = self._seconds_of(worker), now
        self._wake(worker, now + (worker.seconds if worker.rows else IDLE_S))

    def _hold(self, row_id: str, worker: str) -> None:
        holders = self._holders.setdefault(row_id, set())
        is_copy = len(holders) == 1 and not self.dispatcher.room  # the table is exhausted
        assert not holders or is_copy, f"{row_id} is leased twice at once"
        holders.add(worker)
        self.outcome.leased[row_id] += 1

    def _leave(self, row_id: str, now: float) -> None:
        """Have the workers that still have a row hear that it ended; who renders it stops a second later."""
        for name in sorted(self._holders.get(row_id, ())):
            if row_id not in self.dispatcher.take_dropped(name):
                continue
            self._holders[row_id].discard(name)
            worker = self._workers[name]
            worker.rows.remove(row_id)
            if worker.row == row_id:
                worker.row = ""
                self.outcome.wasted_s += now + HEARS_S - worker.began
                self._wake(worker, now + HEARS_S)

    def _seconds_of(self, worker: _Worker) -> float:
        """Return what the row that a worker renders takes there: the same each time where there is a tail."""
        if not self.fleet.tail:
            return self.fleet.seconds_per_row * worker.slowness * self._random.uniform(0.5, 1.5)
        return worker.slowness * self.fleet.seconds_of(worker.row)

    def _end_a_row(self, worker: _Worker, now: float) -> bool:
        """Let one of the worker's rows end, and a late report of a dead one; return whether it lives."""
        if self._ghosts and self._random.random() < 0.5:
            ghost, row_id = self._ghosts.pop()
            self.outcome.stale_counted += self.dispatcher.done(ghost, row_id, now)
        row_id, hours = worker.row, worker.seconds / 3600
        death_chance = self.fleet.death_chance + 1 - math.exp(-self.fleet.deaths_per_hour * hours)
        by_chance = self._random.random() < death_chance
        if row_id in self.fleet.killers or by_chance or worker.machine < self.fleet.num_bad:
            if len(worker.rows) == 1:
                self.outcome.struck_alone.add(row_id)
            self.outcome.wasted_s += worker.seconds
            self._die(worker, now)
            return False
        worker.rows.remove(row_id)
        self._holders[row_id].discard(worker.name)
        if row_id in self.fleet.raisers or self._random.random() < self.fleet.flaky_chance:
            given_up = self.dispatcher.failed(worker.name, row_id, ValueError(row_id))
            self.outcome.given_up += [given_up] if given_up else []
            self.outcome.wasted_s += worker.seconds
        else:
            self.outcome.done[row_id] += self.dispatcher.done(worker.name, row_id, now)
            self.outcome.ends.append(now)
            self.outcome.useful_s += worker.seconds
            self.outcome.longest_s = max(self.outcome.longest_s, worker.seconds)
            self._hosts.done(f"slot {worker.machine}")
        worker.row = ""
        self._leave(row_id, now)
        return True

    def _replace(self, worker: _Worker, now: float, *, is_explained: bool) -> None:
        if not self.fleet.is_fresh:
            return self._start(worker.machine, at=now + START_S)
        rest = self._hosts.fault(
            f"slot {worker.machine}", "SIGILL", kind="died", now=now, is_explained=is_explained
        )
        if rest and not self._hosts.is_blocked(f"machine {worker.machine}"):
            self._start(worker.machine, at=rest.until + START_S)

    def _die(self, worker: _Worker, now: float) -> None:
        for row_id in worker.rows:
            self._holders[row_id].discard(worker.name)
            self._ghosts.append((worker.name, row_id))
        given_up = self.dispatcher.lost(worker.name)
        self.outcome.given_up += given_up
        del self._workers[worker.name]
        for row in given_up:
            self._leave(row.row.row_id, now)
        self._replace(worker, now, is_explained=bool(given_up))
