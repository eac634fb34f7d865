"""A fleet in virtual time: rows go in, and what became of each comes out. Any size, no process, no sleep.

The dispatcher, the rules of faults, what the driver counts, and how it scales the fleet are the real ones;
workers, machines, links and the store are drawn from one seeded generator.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from framefleet.cluster.dispatch.dispatcher import Dispatcher, GivenUp, Row
from framefleet.cluster.dispatch.fault_policy import FaultPolicy
from framefleet.cluster.dispatch.hosts import Hosts, LossKind
from framefleet.cluster.driver.pace import Scale
from framefleet.cluster.driver.tally import Tally
from framefleet.jobs.plan.simulated_fleet import SimulatedFleet, SimulatedRun

IDLE_S = 1.0  # until a worker that got nothing asks again
HEARS_S = 1.0  # until a worker that is to leave a row hears of it
TICK_S = 10.0  # between two looks at how far the job is
MAX_STORING = 4  # clips of a worker on their way to the store: then it waits


@dataclass(slots=True)
class _Worker:
    name: str
    machine: int
    slowness: float
    joined_at: float | None = None  # None: not yet
    is_alive: bool = True
    rows: dict[str, Row] = field(default_factory=dict)  # in its hands and not rendered yet
    held: set[str] = field(default_factory=set)  # these, and rows whose clips are on their way
    row: str = ""  # which of them it renders
    seconds: float = 0.0  # that this takes
    began: float = 0.0
    turn: int = 0  # counts what it was about to do: all but the last is void
    cut_until: float = 0.0
    storing: list[float] = field(default_factory=list)  # when its clips will be stored


Action = Callable[[_Worker, float], None]


class _Timed:
    """A dispatcher that counts the seconds spent in its methods."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher, self.seconds = dispatcher, 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._dispatcher, name)
        return self._timed(found) if callable(found) else found

    def _timed(self, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.thread_time()  # others may be at work on this machine
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.thread_time() - started

        return call


class Simulation:
    """One run. num_rows: of `rows`, for what is expected on the way; 0: nothing is."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        rows: Iterable[Row],
        fleet: SimulatedFleet,
        *,
        faults: FaultPolicy | None = None,
        num_rows: int = 0,
    ) -> None:
        self.dispatcher: Any = _Timed(dispatcher)
        self.fleet, self.outcome = fleet, SimulatedRun()
        self._faults = faults or FaultPolicy()
        self._rows: Iterator[Row] = iter(rows)
        self._random = random.Random(fleet.seed)
        # When, a tie-breaker, who acts, its turn (None: whatever else it does), how.
        self._events: list[tuple[float, int, _Worker, int | None, Action]] = []
        self._workers: dict[str, _Worker] = {}  # that have joined and live
        self._num_started = self._num_starting = 0
        self._holders: dict[str, set[str]] = {}  # row_id: who may have it, the second a copy
        self._ghosts: list[tuple[str, str]] = []  # (dead worker, row in its hands), reported late
        self._half_done: dict[str, float] = {}  # which part of a row a drained worker left done
        self._outage = (0.0, self._next_s(fleet.outages_per_hour))  # the end of one, the begin of the next
        self._hosts = Hosts(self._faults)
        self._tally = Tally(num_rows, now=0.0)
        self._scale = Scale(fleet.elastic) if fleet.elastic else None
        self._wanted = fleet.elastic.min if fleet.elastic else fleet.workers

    def run(self) -> SimulatedRun:
        for machine in range(self._wanted):
            if not self.fleet.is_fresh:
                self._prove(machine)
            self._start(machine, at=self._random.random())
        look_at = TICK_S
        while (
            not self.dispatcher.finished and self._events and not self._hosts.are_hopeless(self.fleet.workers)
        ):
            now, _, worker, turn, action = heapq.heappop(self._events)
            if not worker.is_alive or turn not in (None, worker.turn):
                continue
            self._fill_window()
            action(worker, now)
            self.outcome.end_s = now
            if now >= look_at:
                look_at = now + TICK_S
                self._look(now)
        self.outcome.is_stuck = not self.dispatcher.finished
        for worker in self._workers.values():
            self._count_worker(worker, self.outcome.end_s)
        self.outcome.unused = self._hosts.unused
        self.outcome.dispatch_s = self.dispatcher.seconds
        return self.outcome

    def _look(self, now: float) -> None:
        """Do what the driver does between reports."""
        progress = self._tally.progress(now)
        if progress.eta_s is not None:
            self.outcome.expected.append((now, now + progress.eta_s))
        if self._scale:
            self._wanted = self._scale.wanted(progress)
            for _ in range(self._wanted - len(self._workers) - self._num_starting):
                self._start(self._num_started, at=now + self.fleet.start_s)

    def _prove(self, machine: int) -> None:
        """Have the machine do a row that is not of the table."""
        self.dispatcher.add(Row(row_id="proof", shape="proof"))
        self.dispatcher.join("prover", at=(f"machine {machine}",))
        self.dispatcher.lease("prover", 0.0)
        self.dispatcher.done("prover", "proof", 0.0)
        self.dispatcher.lost("prover")

    def _start(self, machine: int, *, at: float) -> None:
        self._num_started += 1
        self._num_starting += 1
        slow = self._random.random() < self.fleet.slow_share
        self._wake(_Worker(f"w{self._num_started}", machine, 10.0 if slow else 1.0), at, self._join)

    def _wake(self, worker: _Worker, when: float, action: Action) -> None:
        """Have the worker do this next, and nothing else that it was about to do."""
        worker.turn += 1
        heapq.heappush(self._events, (when, self._random.getrandbits(60), worker, worker.turn, action))

    def _later(self, worker: _Worker, when: float, action: Action) -> None:
        """Have this happen to the worker, whatever it does then, if it lives."""
        heapq.heappush(self._events, (when, self._random.getrandbits(60), worker, None, action))

    def _next_s(self, per_hour: float) -> float:
        return self._random.expovariate(per_hour / 3600) if per_hour else float("inf")

    def _fill_window(self) -> None:
        while self.dispatcher.room:
            row = next(self._rows, None)
            if row is None:
                self.dispatcher.close()
                return
            self.dispatcher.add(row)

    def _join(self, worker: _Worker, now: float) -> None:
        fleet, slot = self.fleet, f"slot {worker.machine}"
        self.dispatcher.join(worker.name, at=(f"machine {worker.machine}", slot))
        self._hosts.placed(slot, f"machine {worker.machine}", str(worker.machine))
        self._num_starting -= 1
        worker.joined_at, self._workers[worker.name] = now, worker
        self._tally.joined(worker.name, slot)
        for per_hour, action in (
            (fleet.deaths_per_hour, self._lose),
            (fleet.drains_per_hour, self._drain),
            (fleet.cuts_per_hour, self._cut),
            (fleet.hangs_per_hour, self._hang),
            (fleet.pauses_per_hour, self._pause),
        ):
            if per_hour:
                self._later(worker, now + self._next_s(per_hour), action)
        self._go_on(worker, now)

    def _go_on(self, worker: _Worker, now: float) -> None:
        """Ask for rows, and begin with one."""
        while now >= worker.cut_until and (lease := self.dispatcher.lease(worker.name, now)):
            self.outcome.num_leases += 1
            for leased in lease.rows:
                self._hold(leased.row, worker)
            self._tally.leased(worker.name, len(lease.rows), now=now)
        counts = self.dispatcher.counts
        self.outcome.num_held_most = max(self.outcome.num_held_most, counts.waiting + counts.leased)
        if worker.rows and len(worker.storing) >= MAX_STORING:
            self._wake(worker, min(worker.storing), self._go_on)
        elif worker.rows:
            names = list(worker.rows)
            worker.row = names[0] if self.fleet.tail else self._random.choice(names)
            worker.seconds, worker.began = self._seconds_of(worker), now
            self._wake(worker, now + worker.seconds, self._end_row)
        elif self._scale and len(self._workers) + self._num_starting > self._wanted and not worker.storing:
            self._retire(worker, now)
        else:
            self.outcome.idle_s += IDLE_S
            self._wake(worker, now + IDLE_S, self._go_on)

    def _hold(self, row: Row, worker: _Worker) -> None:
        holders = self._holders.setdefault(row.row_id, set())
        is_copy = len(holders) == 1 and not self.dispatcher.room  # the table is exhausted
        assert not holders or is_copy, f"{row.row_id} is leased twice at once"
        holders.add(worker.name)
        worker.held.add(row.row_id)
        worker.rows[row.row_id] = row
        self.outcome.leased[row.row_id] += 1

    def _let_go(self, row_id: str, worker: _Worker) -> None:
        worker.held.discard(row_id)
        worker.rows.pop(row_id, None)
        holders = self._holders[row_id]
        holders.discard(worker.name)
        if not holders:
            del self._holders[row_id]

    def _seconds_of(self, worker: _Worker) -> float:
        """Return what the row that a worker renders takes there: the same each time where there is a tail."""
        shape, left = worker.rows[worker.row].shape, 1 - self._half_done.get(worker.row, 0.0)
        if not self.fleet.tail:
            mean_s = self.fleet.seconds.get(shape, self.fleet.seconds_per_row)
            return left * mean_s * worker.slowness * self._random.uniform(0.5, 1.5)
        return left * worker.slowness * self.fleet.seconds_of(worker.row, shape)

    def _end_row(self, worker: _Worker, now: float) -> None:
        """Let the row that the worker renders end, and a late report of a dead worker come."""
        if self._ghosts and self._random.random() < 0.5:
            ghost, ghosts_row = self._ghosts.pop()
            self.outcome.stale_counted += self.dispatcher.done(ghost, ghosts_row, now)
        row_id = worker.row
        by_chance = self._random.random() < self.fleet.death_chance
        if row_id in self.fleet.killers or by_chance or worker.machine < self.fleet.num_bad:
            self._lose(worker, now)
            return
        del worker.rows[row_id]  # and it is still in its hands
        worker.row = ""
        stored_at = max(self._stored_at(now), worker.cut_until)
        report = partial(self._report, row_id=row_id, seconds=worker.seconds)
        worker.storing.append(stored_at)
        if stored_at <= now:
            report(worker, stored_at)
        else:
            self._later(worker, stored_at, report)
        self._go_on(worker, now)

    def _stored_at(self, now: float) -> float:
        """Return when a clip is stored that is rendered now."""
        stored_at = now + self.fleet.store_s * self._random.uniform(0.5, 1.5)
        while stored_at > self._outage[1]:
            end = self._outage[1] + self._random.expovariate(1 / self.fleet.outage_s)
            self._outage = end, end + self._next_s(self.fleet.outages_per_hour)
        return max(stored_at, self._outage[0])

    def _report(self, worker: _Worker, now: float, *, row_id: str, seconds: float) -> None:
        worker.storing.remove(now)
        if row_id not in worker.held:
            self.outcome.wasted_s += seconds  # another one was quicker
            return
        self._let_go(row_id, worker)
        if row_id in self.fleet.raisers or self._random.random() < self.fleet.flaky_chance:
            given_up = self.dispatcher.failed(worker.name, row_id, ValueError(row_id))
            self._tally.returned(worker.name)
            self._give_up([given_up] if given_up else [], now)
            self.outcome.wasted_s += seconds
            return
        self.outcome.done[row_id] += self.dispatcher.done(worker.name, row_id, now)
        self.outcome.ends.append(now)
        self.outcome.useful_s += seconds
        self.outcome.longest_s = max(self.outcome.longest_s, seconds)
        self._hosts.done(f"slot {worker.machine}")
        self._tally.done(worker.name, 1.0)
        self._leave(row_id, now)

    def _give_up(self, rows: Iterable[GivenUp], now: float) -> None:
        for given_up in rows:
            self.outcome.given_up.append(given_up)
            self._tally.failed(given_up.reason)
            self._leave(given_up.row.row_id, now)

    def _leave(self, row_id: str, now: float) -> None:
        """Have the workers that still have a row hear that it ended; who renders it stops a second later."""
        for name in sorted(self._holders.get(row_id, ())):
            if row_id not in self.dispatcher.take_dropped(name):
                continue
            worker = self._workers[name]
            self._let_go(row_id, worker)
            self._tally.returned(name)
            if worker.row == row_id:
                worker.row = ""
                self.outcome.wasted_s += now + HEARS_S - worker.began
                self._wake(worker, now + HEARS_S, self._go_on)

    def _drain(self, worker: _Worker, now: float) -> None:
        """Its machine goes, with notice: it hands back its rows, one of them half-done."""
        if worker.row and worker.seconds:
            before = self._half_done.get(worker.row, 0.0)
            self._half_done[worker.row] = before + (now - worker.began) / worker.seconds * (1 - before)
        rows = list(worker.rows)
        for row_id in rows:
            self._let_go(row_id, worker)
            self._tally.returned(worker.name)
        self.dispatcher.put_back(worker.name, rows)
        worker.row = ""
        self._wake(worker, max([now, *worker.storing]), self._gone)

    def _gone(self, worker: _Worker, now: float) -> None:
        """Its machine has gone, and another takes its place."""
        if worker.storing:
            self._wake(worker, now + IDLE_S, self._gone)
            return
        self._retire(worker, now)
        self._start(worker.machine, at=now + self.fleet.start_s)

    def _retire(self, worker: _Worker, now: float) -> None:
        self.dispatcher.lost(worker.name)
        self._hosts.left(f"slot {worker.machine}")
        self._tally.left(worker.name, "drained")
        self._remove(worker, now)

    def _cut(self, worker: _Worker, now: float) -> None:
        """Nobody hears of it for a while; it renders on."""
        cut_s = self._random.expovariate(1 / self.fleet.cut_s)
        worker.cut_until = now + cut_s
        if cut_s > self.fleet.silence_s:
            self._later(worker, now + self.fleet.silence_s, self._fall_silent)
        else:
            self._later(worker, worker.cut_until + self._next_s(self.fleet.cuts_per_hour), self._cut)

    def _fall_silent(self, worker: _Worker, now: float) -> None:
        self.outcome.num_ended += 1
        self._lose(worker, now, kind="silent", at_least=worker.cut_until)

    def _hang(self, worker: _Worker, now: float) -> None:
        self._stand_still(worker, now, float("inf"))

    def _pause(self, worker: _Worker, now: float) -> None:
        self._later(worker, now + self._next_s(self.fleet.pauses_per_hour), self._pause)
        self._stand_still(worker, now, self._random.expovariate(1 / self.fleet.pause_s))

    def _stand_still(self, worker: _Worker, now: float, seconds: float) -> None:
        """Its row comes no further for this long, and the driver ends it where that is too long."""
        if not worker.row:
            return
        pace = self.dispatcher.seconds_per_row(worker.name, [worker.row])
        longest_s = self._faults.longest_still_s(pace, num_rows=self.fleet.max_rows)
        if seconds > longest_s:
            self.outcome.num_ended += seconds < float("inf")
            self._wake(worker, now + longest_s, partial(self._lose, suspects=[worker.row]))
        else:
            worker.seconds += seconds
            self._wake(worker, worker.began + worker.seconds, self._end_row)

    def _lose(
        self,
        worker: _Worker,
        now: float,
        *,
        kind: LossKind = "died",
        suspects: Collection[str] | None = None,
        at_least: float = 0.0,
    ) -> None:
        """The worker is gone with all it had. at_least: when its machine can be reached again."""
        if worker.row:
            self.outcome.wasted_s += now - worker.began
        if len(worker.held) == 1:
            self.outcome.struck_alone |= worker.held
        for row_id in sorted(worker.held):
            self._let_go(row_id, worker)
            self._ghosts.append((worker.name, row_id))
        given_up = self.dispatcher.lost(worker.name, suspects=suspects)
        self._tally.left(worker.name, "lost")
        self._remove(worker, now)
        self._give_up(given_up, now)
        self._replace(worker, max(now, at_least), kind, is_explained=bool(given_up))

    def _remove(self, worker: _Worker, now: float) -> None:
        self._count_worker(worker, now)
        worker.is_alive = False
        del self._workers[worker.name]

    def _count_worker(self, worker: _Worker, now: float) -> None:
        assert worker.joined_at is not None
        self.outcome.worker_s += now - worker.joined_at

    def _replace(self, worker: _Worker, now: float, kind: LossKind, *, is_explained: bool) -> None:
        if not self.fleet.is_fresh:
            return self._start(worker.machine, at=now + self.fleet.start_s)
        rest = self._hosts.fault(
            f"slot {worker.machine}", "SIGILL", kind=kind, now=now, is_explained=is_explained
        )
        if rest and not self._hosts.is_blocked(f"machine {worker.machine}"):
            self._start(worker.machine, at=rest + self.fleet.start_s)
