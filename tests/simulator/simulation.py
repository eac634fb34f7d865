"""A fleet in virtual time: rows go in, and what became of each comes out. Any size, no process, no sleep.

The dispatcher, the rules of faults, what the driver counts, and how it scales the fleet are the real ones;
workers and machines are drawn from one seeded generator.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from framefleet import Progress
from framefleet.cluster.dispatch.dispatcher import Dispatcher, GivenUp, Row
from framefleet.cluster.dispatch.faults import FaultPolicy, Hosts, LossKind, LostRows
from framefleet.cluster.driver.tally import Scale, Tally
from framefleet.cluster.fleet.settings import ElasticWorkers

IDLE_S = 1.0  # until a worker that got nothing asks again
HEARS_S = 1.0  # until a worker that is to leave a row hears of it
TICK_S = 10.0  # between two looks at how far the job is


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedFleet:
    """seconds: of a row, by shape, within a half of it; of other shapes `seconds_per_row`.

    What is by the hour is of each worker: drains hand rows back before the worker goes.
    """

    workers: int  # each on a machine of its own
    elastic: ElasticWorkers | None = None  # then as many as the rows left need, beginning with its least
    seed: int = 0
    seconds_per_row: float = 1.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    start_s: float = 30.0  # a new worker in the place of a dead one
    deaths_per_hour: float = 0.0
    drains_per_hour: float = 0.0


@dataclass(slots=True)
class SimulatedRun:
    """What became of the rows, and of the time."""

    done: Counter[str] = field(default_factory=Counter)
    given_up: list[GivenUp] = field(default_factory=list)
    useful_s: float = 0.0  # spent on rows that were done, by all workers together
    worker_s: float = 0.0  # of all workers, since they joined
    end_s: float = 0.0


@dataclass(slots=True)
class SimulatedWorker:
    """held: rows in its hands. rows: those of them that are not rendered yet."""

    name: str
    machine: int
    joined_at: float | None = None  # None: not yet
    is_alive: bool = True
    rows: dict[str, Row] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    row: str = ""  # which of them it renders
    seconds: float = 0.0  # that this takes
    began: float = 0.0
    turn: int = 0  # counts what it was about to do: all but the last is void


Action = Callable[..., None]  # of a worker, at a time


class Simulation:
    """One run. num_rows: of `rows`. Other faults are those of subclasses."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        rows: Iterable[Row],
        fleet: SimulatedFleet,
        *,
        faults: FaultPolicy,
        num_rows: int,
    ) -> None:
        self.dispatcher, self.fleet = dispatcher, fleet
        self.outcome = SimulatedRun()
        self._rows: Iterator[Row] = iter(rows)
        self._random = random.Random(fleet.seed)
        # When, a tie-breaker, who acts, its turn (None: whatever else it does), how.
        self._events: list[tuple[float, int, SimulatedWorker, int | None, Action]] = []
        self._workers: dict[str, SimulatedWorker] = {}  # that have joined and live
        self._num_started = self._num_starting = 0
        self._holders: dict[str, set[str]] = {}  # row_id: who may have it, the second a copy
        self._left: dict[str, float] = {}  # which part of a row a drained worker left to do
        self._hosts = Hosts(faults)
        self._tally = Tally(num_rows, now=0.0)
        self._scale = Scale(fleet.elastic) if fleet.elastic else None
        self._wanted = fleet.elastic.min if fleet.elastic else fleet.workers

    def run(self) -> SimulatedRun:
        for machine in range(self._wanted):
            self._start(machine, at=self._random.random())
        look_at = TICK_S
        while not self.dispatcher.finished and self._events and not self._hosts.despair(self.fleet.workers):
            now, _, worker, turn, action = heapq.heappop(self._events)
            if not worker.is_alive or turn not in (None, worker.turn):
                continue
            self._fill_window()
            action(worker, now)
            self.outcome.end_s = now
            if now >= look_at:
                look_at = now + TICK_S
                self._look(self._tally.progress(now, self.dispatcher.in_hand()), now)
        for worker in self._workers.values():
            self._count_worker(worker, self.outcome.end_s)
        return self.outcome

    def _look(self, progress: Progress, now: float) -> None:
        """Do what the driver does between reports."""
        if self._scale:
            self._wanted = self._scale.wanted(progress)
            for _ in range(self._wanted - len(self._workers) - self._num_starting):
                self._start(self._num_started, at=now + self.fleet.start_s)

    def _start(self, machine: int, *, at: float) -> None:
        self._num_started += 1
        self._num_starting += 1
        self._wake(self._new_worker(f"w{self._num_started}", machine), at, self._join)

    def _new_worker(self, name: str, machine: int) -> SimulatedWorker:
        return SimulatedWorker(name, machine)

    def _wake(self, worker: SimulatedWorker, when: float, action: Action) -> None:
        """Have the worker do this next, and nothing else that it was about to do."""
        worker.turn += 1
        heapq.heappush(self._events, (when, self._random.getrandbits(60), worker, worker.turn, action))

    def _later(self, worker: SimulatedWorker, when: float, action: Action) -> None:
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

    def _join(self, worker: SimulatedWorker, now: float) -> None:
        slot = f"slot {worker.machine}"
        self.dispatcher.join(worker.name, at=(f"machine {worker.machine}", slot))
        self._hosts.placed(slot, f"machine {worker.machine}", str(worker.machine))
        self._num_starting -= 1
        worker.joined_at, self._workers[worker.name] = now, worker
        self._tally.joined(worker.name, slot)
        for per_hour, action in self._rates():
            if per_hour:
                self._later(worker, now + self._next_s(per_hour), action)
        self._go_on(worker, now)

    def _rates(self) -> list[tuple[float, Action]]:
        """Return what happens to a worker, and how often in an hour."""
        return [(self.fleet.deaths_per_hour, self._lose), (self.fleet.drains_per_hour, self._drain)]

    def _go_on(self, worker: SimulatedWorker, now: float) -> None:
        """Ask for rows, and begin with one."""
        self._ask(worker, now)
        if worker.rows:
            self._begin(worker, now)
        elif self._scale and len(self._workers) + self._num_starting > self._wanted:
            self._retire(worker, now)
        else:
            self._rest(worker, now)

    def _expect(self) -> None:
        self.dispatcher.expect(len(self._workers) + self._num_starting)

    def _ask(self, worker: SimulatedWorker, now: float) -> None:
        self._expect()
        while lease := self.dispatcher.lease(worker.name, now):
            for leased in lease.rows:
                self._hold(leased.row, worker)
            self._tally.leased(now=now)

    def _begin(self, worker: SimulatedWorker, now: float) -> None:
        worker.row = self._next_row(worker)
        worker.seconds, worker.began = self._seconds_of(worker), now
        self._wake(worker, now + worker.seconds, self._end_row)

    def _rest(self, worker: SimulatedWorker, now: float) -> None:
        self._wake(worker, now + IDLE_S, self._go_on)

    def _hold(self, row: Row, worker: SimulatedWorker) -> None:
        holders = self._holders.setdefault(row.row_id, set())
        is_copy = len(holders) == 1 and not self.dispatcher.room  # the table is exhausted
        assert not holders or is_copy, f"{row.row_id} is leased twice at once"
        holders.add(worker.name)
        worker.held.add(row.row_id)
        worker.rows[row.row_id] = row

    def _let_go(self, row_id: str, worker: SimulatedWorker) -> None:
        worker.held.discard(row_id)
        worker.rows.pop(row_id, None)
        holders = self._holders[row_id]
        holders.discard(worker.name)
        if not holders:
            del self._holders[row_id]

    def _next_row(self, worker: SimulatedWorker) -> str:
        return self._random.choice(list(worker.rows))

    def _seconds_of(self, worker: SimulatedWorker) -> float:
        """Return what the row that a worker renders takes there."""
        mean_s = self.fleet.seconds.get(worker.rows[worker.row].shape, self.fleet.seconds_per_row)
        return self._left.get(worker.row, 1.0) * mean_s * self._random.uniform(0.5, 1.5)

    def _end_row(self, worker: SimulatedWorker, now: float) -> None:
        """Let the row that the worker renders end."""
        row_id = worker.row
        del worker.rows[row_id]  # and it is still in its hands
        worker.row = ""
        self._report(worker, now, row_id=row_id, seconds=worker.seconds)
        self._go_on(worker, now)

    def _report(self, worker: SimulatedWorker, now: float, *, row_id: str, seconds: float) -> None:
        if row_id not in worker.held:
            return  # another one was quicker
        self._let_go(row_id, worker)
        self.outcome.done[row_id] += self.dispatcher.done(worker.name, row_id, now)
        self.outcome.useful_s += seconds
        self._hosts.done(f"slot {worker.machine}", row_id)
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
            if worker.row == row_id:
                worker.row = ""
                self._wake(worker, now + HEARS_S, self._go_on)

    def _drain(self, worker: SimulatedWorker, now: float) -> None:
        """Its machine goes, with notice: it hands back its rows, one of them half-done."""
        if worker.row and worker.seconds:
            left = self._left.get(worker.row, 1.0)
            self._left[worker.row] = left * (1 - (now - worker.began) / worker.seconds)
        for row_id in list(worker.rows):
            self._let_go(row_id, worker)
        worker.row = ""
        self._wake(worker, now, self._gone)

    def _gone(self, worker: SimulatedWorker, now: float) -> None:
        """Its machine has gone, and another takes its place."""
        self._lose(worker, now, kind="gone", suspects=())

    def _retire(self, worker: SimulatedWorker, now: float) -> None:
        self.dispatcher.lost(worker.name)
        self._hosts.left(f"slot {worker.machine}")
        self._tally.left(worker.name, "drained")
        self._remove(worker, now)

    def _lose(
        self,
        worker: SimulatedWorker,
        now: float,
        *,
        kind: LossKind = "died",
        suspects: Collection[str] | None = None,
    ) -> None:
        """The worker is gone with all it had."""
        rows = sorted(worker.held) if suspects is None else [*suspects]
        for row_id in sorted(worker.held):
            self._let_go(row_id, worker)
        given_up = self.dispatcher.lost(worker.name, suspects=suspects)
        self._tally.left(worker.name, "lost")
        self._remove(worker, now)
        self._give_up(given_up, now)
        self._replace(worker, now, kind, rows, [one.row.row_id for one in given_up])

    def _remove(self, worker: SimulatedWorker, now: float) -> None:
        self._count_worker(worker, now)
        worker.is_alive = False
        del self._workers[worker.name]

    def _count_worker(self, worker: SimulatedWorker, now: float) -> None:
        assert worker.joined_at is not None
        self.outcome.worker_s += now - worker.joined_at

    def _replace(
        self,
        worker: SimulatedWorker,
        now: float,
        kind: LossKind,
        rows: Collection[str],
        given_up: Collection[str],
    ) -> None:
        rest = self._hosts.fault(
            f"slot {worker.machine}", "SIGILL", kind=kind, now=now, loss=self._loss(rows, given_up)
        )
        if rest and not self._hosts.is_blocked(f"machine {worker.machine}"):
            self._start(worker.machine, at=rest + self.fleet.start_s)

    def _loss(self, rows: Collection[str], given_up: Collection[str]) -> LostRows:
        dispatcher = self.dispatcher
        return LostRows(
            rows=rows, given_up=given_up, num_suspects=dispatcher.num_suspects, busy=dispatcher.in_hand()
        )
