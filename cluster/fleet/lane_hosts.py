"""What is known of machines, lane by lane: a fault says nothing of a machine's work for another lane."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable

from framefleet.cluster.dispatch.fault_policy import FaultPolicy
from framefleet.cluster.dispatch.hosts import SILENT_REST_S, Hosts, LostRows
from framefleet.cluster.fleet.losses import Cause
from framefleet.pipeline.errors import FramefleetError
from framefleet.pipeline.rows.lane_key import LaneKey


class LaneHosts:
    """What is known of machines, for each lane. closed: lanes that were given up, each with its reason."""

    def __init__(self, faults: FaultPolicy) -> None:
        self._faults = faults
        self._by_lane: dict[LaneKey, Hosts] = {}
        self._proven = defaultdict[str, set[str]](set)  # by model: where a row of it was rendered
        self.closed: dict[LaneKey, FramefleetError] = {}

    def of(self, lane: LaneKey) -> Hosts:
        if lane not in self._by_lane:
            self._by_lane[lane] = Hosts(self._faults, self._proven[lane.model])
        return self._by_lane[lane]

    def fault(self, lane: LaneKey, worker: str, cause: Cause, *, loss: LostRows, now: float) -> float | None:
        """Do what `Hosts.fault` does, for a worker of a lane; a machine out of reach is so for all lanes."""
        hosts = self.of(lane)
        host = hosts.host_of(worker)
        starts_at = hosts.fault(worker, cause.reason, kind=cause.kind, now=now, loss=loss, error=cause.error)
        if cause.kind == "silent" and host:
            for other in self._by_lane.values():
                other.rest(host, now + SILENT_REST_S)
        return starts_at

    def blocked(self, lanes: Iterable[LaneKey]) -> set[str]:
        """Return the machines that none of these lanes uses any more."""
        each = [set(self.of(lane).to_avoid(time.monotonic())[0]) for lane in lanes]
        return set.intersection(*each) if each else set()

    def is_unfit(self, lane: LaneKey, worker: str, host: str | None) -> bool:
        """Tell whether a lane uses a worker or its machine no longer, or was given up."""
        hosts = self.of(lane)
        is_blocked = host is not None and hosts.is_blocked(host)
        return lane in self.closed or is_blocked or hosts.is_barred(worker)

    def renew(self) -> None:
        """Forget refusals and faults, because the weights are others now."""
        self._by_lane.clear()
        self._proven.clear()
        self.closed.clear()

    def unused(self, *, are_several: bool) -> tuple[str, ...]:
        """Return what is no longer used, each with its reason, in words."""
        return tuple(
            f"{lane}: {place}" if are_several and str(lane) else place
            for lane, hosts in self._by_lane.items()
            for place in hosts.unused
        )
