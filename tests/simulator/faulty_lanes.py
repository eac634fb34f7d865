"""Lanes in virtual time, some of which cannot be loaded or kill their workers: what is left of the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any
from unittest import mock

from framefleet.cluster.dispatch.faults import FaultPolicy, LossKind, LostRows
from framefleet.cluster.dispatch.lane_choice import Backlog
from framefleet.cluster.fleet.losses import Cause, LaneHosts
from framefleet.pipeline.rows.identity import LaneKey
from tests.simulator.faulty_fleet import FaultyFleet
from tests.simulator.several_lanes import SeveralLanes, SimulatedLane
from tests.simulator.simulation import TICK_S


class _HostsOfLanes:
    """What a simulation knows of machines, by the lane of the worker that each has."""

    unused: tuple[str, ...] = ()

    def __init__(self, lanes: LaneHosts) -> None:
        self._lanes = lanes
        self.lane_of: dict[str, LaneKey] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda slot, *args: getattr(self._lanes.of(self.lane_of[slot]), name)(slot, *args)

    def fault(self, slot: str, reason: str, *, kind: LossKind, loss: LostRows, now: float) -> float | None:
        cause = Cause(reason=reason, kind=kind)
        return self._lanes.fault(self.lane_of[slot], slot, cause, loss=loss, now=now)

    def despair(self, num_workers: int) -> str:
        return ""


class FaultyLanes(SeveralLanes):
    """broken: lanes whose model no machine can load."""

    def __init__(
        self, lanes: Mapping[LaneKey, SimulatedLane], fleet: FaultyFleet, *, broken: frozenset[LaneKey]
    ) -> None:
        super().__init__(lanes, fleet, faults=FaultPolicy())
        self.lanes, self._broken = LaneHosts(FaultPolicy()), broken
        proven = defaultdict[str, set[str]](set)
        for key, dispatcher in self._routed.by_lane.items():  # as the driver's lanes of a model share it
            dispatcher._proven = proven[key.model]
        self._hosts: Any = _HostsOfLanes(self.lanes)
        self._routed.closed = self._closed

    def _closed(self) -> set[LaneKey]:
        """Return the lanes that no machine can serve."""
        machines = range(self.fleet.workers)
        return {lane for lane in self._specs if all(self._is_unfit(lane, machine) for machine in machines)}

    def _is_unfit(self, lane: LaneKey, machine: int) -> bool:
        return self.lanes.is_unfit(lane, f"slot {machine}", f"machine {machine}")

    def _start(self, machine: int, *, at: float, lane: LaneKey | None = None) -> None:
        if lane is None:
            choice = self._choice(machine)
            if not choice:  # rows in hand may come back
                self._later(self._new_worker("", machine), at + TICK_S, self._start_again)
                return
            with mock.patch.object(self, "_backlogs", lambda: choice):
                super()._start(machine, at=at)
        else:
            super()._start(machine, at=at, lane=lane)

    def _start_again(self, idle: Any, now: float) -> None:
        """Start a worker on a machine where there was nothing to do, if there is now."""
        self._start(idle.machine, at=now)

    def _choice(self, machine: int) -> dict[LaneKey, Backlog]:
        """Return the lanes that a worker of a machine may serve, best those whose workers do not die."""
        left = {key: one for key, one in self._backlogs().items() if one.num_rows}
        fit = {key: one for key, one in left.items() if not self._is_unfit(key, machine)}
        calm = {key: one for key, one in fit.items() if not self.lanes.of(key).are_doubtful}
        return calm or fit

    def _backlogs(self) -> dict[LaneKey, Backlog]:
        closed = self._closed()
        return {key: one for key, one in super()._backlogs().items() if key not in closed}

    def _join(self, worker: Any, now: float) -> None:
        lane, slot = self._routed.lane_of[worker.name], f"slot {worker.machine}"
        self._hosts.lane_of[slot] = lane
        if lane not in self._broken:
            super()._join(worker, now)
            return
        self._coming[lane] -= 1
        self._num_starting -= 1
        worker.is_alive = False
        self._hosts.placed(slot, f"machine {worker.machine}", str(worker.machine))
        self._replace(worker, now, "refused", (), ())

    def _replace(
        self, worker: Any, now: float, kind: LossKind, rows: Collection[str], given_up: Collection[str]
    ) -> None:
        rest = self._hosts.fault(
            f"slot {worker.machine}", "SIGILL", kind=kind, now=now, loss=self._loss(rows, given_up)
        )
        self._start(worker.machine, at=(rest or now) + self.fleet.start_s)
