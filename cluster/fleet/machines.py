"""In: a Ray cluster that this process has joined. Out: its machines, again and again, or that it is lost.

The cluster is asked in a thread of its own: if its head is gone, it does not answer for a while, and callers
must not wait for that.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from framefleet.pipeline.errors import FleetError

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0  # between two looks, which cost the head of the cluster a millisecond
_CONNECT_S = 2.0
_STOP_S = 5.0  # for a look under way to end
_GO_ON = "run the same command again to continue; if the cluster is yours, check first whether its Ray runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine of a cluster, and its resources in Ray."""

    node_id: str
    host: str
    address: str
    port: int = 0  # of its Ray
    cpus: float = 0.0
    gpus: float = 0.0
    is_alive: bool = True
    is_draining: bool = False  # it goes soon: workers there must hand back their rows

    @property
    def name(self) -> str:
        return f"{self.host} ({self.address})"

    def holds(self, *, cpus: float, gpus: float) -> int:
        """Return how many workers have room here. A share of a GPU is a share of one card."""
        rooms = [_times(self.cpus, cpus)] if cpus else []
        if gpus:
            cards = int(self.gpus) if gpus < 1 else 0  # each is shared by itself
            rooms.append(cards * _times(1, gpus) + _times(self.gpus - cards, gpus))
        return min(rooms, default=1)


def _times(total: float, need: float) -> int:
    return int(total / need + 1e-9)  # 0.7 / 0.1 is a little less than 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Which resources of a cluster are free, and which processes wait for some."""

    free: tuple[Machine, ...] = ()  # each machine with the CPUs and GPUs that nobody has
    awaited: frozenset[tuple[float, float]] = frozenset()  # CPUs and GPUs of processes that wait


class Machines:
    """The machines of the cluster, as a context. Reading never waits for the cluster."""

    def __init__(
        self, own: str, *, look: Callable[[], list[Machine]], look_for_room: Callable[[], Room] = Room
    ) -> None:
        """own: the id of this machine. look, look_for_room: as `Head.machines` and `Head.room`."""
        self._own, self._look, self._look_for_room = own, look, look_for_room
        self.wants_room = False  # whether to look for it too
        self.room = Room()
        self.num_looks = 0  # that were answered
        self.alive: tuple[Machine, ...] = ()
        self._lost: str | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="machines", daemon=True)

    def __enter__(self) -> Self:
        """Raises FleetError if the cluster does not say what machines it has."""
        try:
            self._take_look()
        except Exception as error:  # of Ray, gRPC, ...: the head is busy, or gone already
            raise FleetError(f"the head of the Ray cluster does not answer: {error}", _GO_ON) from error
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._thread.join(_STOP_S)

    def check(self, *, silent_s: float, limit_s: float) -> None:
        """Raise FleetError if the cluster is lost. silent_s: since its last answer, as callers count."""
        if self._lost is not None:
            raise FleetError(self._lost, _GO_ON)
        if silent_s > limit_s:
            raise FleetError(f"the head of the Ray cluster has not answered for {silent_s:.0f} s", _GO_ON)

    def find(self, *, node_id: str | None = None, address: str | None = None) -> Machine | None:
        for machine in self.alive:
            if machine.node_id == node_id or (address and machine.address == address):
                return machine
        return None

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            try:
                self._check_own()
                self._take_look()
            except Exception as error:  # the head is gone: `check` raises once that lasts too long
                log.debug("the cluster does not answer: %s", error)

    def _take_look(self) -> None:
        machines = self._look()
        if self._stopped.is_set():
            return
        self.alive = tuple(machine for machine in machines if machine.is_alive)
        if any(machine.node_id == self._own and not machine.is_alive for machine in machines):
            self._lost = "the Ray cluster has given this machine up"
        self.num_looks += 1
        if self.wants_room:
            self.room = self._look_for_room()

    def _check_own(self) -> None:
        """Note if Ray on this machine, through which all our calls go, has ended."""
        own = self.find(node_id=self._own)
        if own is None or not own.port:
            return
        try:
            socket.create_connection((own.address, own.port), timeout=_CONNECT_S).close()
        except ConnectionRefusedError:
            self._lost = "the Ray of this machine (its raylet) has ended"
        except OSError:
            return  # the machine is busy, or its link is down: then workers are silent too
