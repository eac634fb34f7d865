"""A fleet in virtual time for rows of several lanes: who loads what, who moves when, and what that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from framefleet.cluster.dispatch.dispatcher import Dispatcher, Row
from framefleet.cluster.dispatch.faults import FaultPolicy
from framefleet.cluster.dispatch.lane_choice import Backlog, move_from, next_lane
from framefleet.pipeline.rows.identity import LaneKey
from tests.simulator.faulty_fleet import FaultyFleet, FaultySimulation
from tests.simulator.simulation import IDLE_S

NUM_SHAPES = 3  # of each lane


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedLane:
    """num_rows: of the table. row_s, load_s: seconds of a worker for a row, and to load its model.

    row_work: what a row is expected to take.
    """

    num_rows: int
    row_s: float
    load_s: float
    row_work: float = 1.0


class Routed:
    """The dispatchers of several lanes as one: what is said of a worker goes to that of its lane."""

    def __init__(self, by_lane: Mapping[LaneKey, Dispatcher]) -> None:
        self.by_lane = by_lane
        self.lane_of: dict[str, LaneKey] = {}  # of each worker
        self._last = next(iter(by_lane))
        self.closed: Callable[[], set[LaneKey]] = set  # that no worker can serve

    def __getattr__(self, name: str) -> Any:
        def call(worker: str, *args: Any, **kwargs: Any) -> Any:
            self._last = self.lane_of[worker]
            return getattr(self.by_lane[self._last], name)(worker, *args, **kwargs)

        return call

    @property
    def finished(self) -> bool:
        closed = self.closed()
        return all(one.finished for key, one in self.by_lane.items() if key not in closed)

    @property
    def num_suspects(self) -> int:
        """Of the lane that was spoken of last."""
        return self.by_lane[self._last].num_suspects

    @property
    def room(self) -> int:
        """Of the lane that was spoken of last."""
        return self.by_lane[self._last].room

    def in_hand(self) -> dict[str, int]:
        """Of the lane that was spoken of last."""
        return self.by_lane[self._last].in_hand()

    @property
    def num_waiting(self) -> int:
        return sum(one.num_waiting for one in self.by_lane.values())

    @property
    def num_leased(self) -> int:
        return sum(one.num_leased for one in self.by_lane.values())


class SeveralLanes(FaultySimulation):
    """num_loads: how often a model was loaded, by lane."""

    def __init__(
        self,
        lanes: Mapping[LaneKey, SimulatedLane],
        fleet: FaultyFleet,
        *,
        faults: FaultPolicy | None = None,
        window: int = 4096,
    ) -> None:
        self._specs = lanes
        self._routed: Any = Routed({name: Dispatcher(faults, window=window) for name in lanes})
        seconds = {f"{name}: {n}": one.row_s for name, one in lanes.items() for n in range(NUM_SHAPES)}
        self._unread = {name: one.num_rows for name, one in lanes.items()}
        num_rows = sum(self._unread.values())
        super().__init__(self._routed, (), replace(fleet, seconds=seconds), faults=faults, num_rows=num_rows)
        self._tables = {name: _table(name, one.num_rows) for name, one in lanes.items()}
        self._loaded: dict[LaneKey, float] = {}  # seconds that each took, once it was loaded
        self._coming: Counter[LaneKey] = Counter()  # workers that load, by lane
        self.num_loads: Counter[LaneKey] = Counter()

    def _fill_window(self) -> None:
        for name, dispatcher in self._routed.by_lane.items():
            for row in islice(self._tables[name], dispatcher.room):
                dispatcher.add(row)
                self._unread[name] -= 1
            if not self._unread[name] and dispatcher.room:
                dispatcher.close()

    def _start(self, machine: int, *, at: float, lane: LaneKey | None = None) -> None:
        lane = next_lane(self._backlogs()) if lane is None else lane
        super()._start(machine, at=at + self._specs[lane].load_s)
        self._routed.lane_of[f"w{self._num_started}"] = lane
        self._coming[lane] += 1
        self.num_loads[lane] += 1

    def _join(self, worker: Any, now: float) -> None:
        lane = self._routed.lane_of[worker.name]
        self._loaded[lane] = self._specs[lane].load_s
        self._coming[lane] -= 1
        super()._join(worker, now)

    def _expect(self) -> None:
        serving = Counter(self._routed.lane_of[name] for name in self._workers) + self._coming
        for lane, dispatcher in self._routed.by_lane.items():
            dispatcher.expect(serving[lane])

    def _go_on(self, worker: Any, now: float) -> None:
        super()._go_on(worker, now)
        if not worker.is_alive or worker.held or worker.storing or now < worker.cut_until:
            return
        own = self._routed.lane_of[worker.name]
        lane = move_from(own, self._backlogs())
        if lane is None and self._routed.by_lane[own].num_for_new(worker.name) > self._coming[own]:
            lane = own  # a new process, as in `Driver._is_new_process_wanted`
        if lane is not None:
            self.outcome.idle_s -= IDLE_S
            self._retire(worker, now)
            self._start(worker.machine, at=now, lane=lane)

    def _backlogs(self) -> dict[LaneKey, Backlog]:
        there = Counter(self._routed.lane_of[name] for name in self._workers)
        return {
            name: Backlog(
                num_rows=self._unread[name] + dispatcher.num_waiting,
                row_s=dispatcher.mean_seconds,
                num_workers=there[name] + self._coming[name],
                load_s=self._loaded.get(name),
                row_work=self._specs[name].row_work,
            )
            for name, dispatcher in self._routed.by_lane.items()
        }


def _table(lane: LaneKey, num_rows: int) -> Iterator[Row]:
    return (Row(row_id=f"{lane} {n}", shape=f"{lane}: {n * n % 7 % NUM_SHAPES}") for n in range(num_rows))
