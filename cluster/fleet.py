"""Worker actors on a Ray cluster: started, asked, replaced when they die. Decides nothing about rows.

A worker always has one call under way, `start` or `exchange`; what comes of it is an event.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayError, RayTaskError

import framefleet
from framefleet.cluster.connection import connect
from framefleet.cluster.draining_nodes import DrainingNodes
from framefleet.cluster.messages import Assignment, Hello, Loading, WorkerReport, WorkerSetup
from framefleet.cluster.settings import FaultPolicy, FleetSettings
from framefleet.cluster.ship import modules_to_ship
from framefleet.cluster.worker import Worker
from framefleet.pipeline.errors import FleetError, FramefleetError
from framefleet.pipeline.guards.public import public_text
from framefleet.pipeline.model.environment import source_fingerprint

log = logging.getLogger(__name__)

NODES_S = 5.0  # a worker answers within the second that one `exchange` takes
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Ready:
    worker: str
    hello: Hello


@dataclass(frozen=True, slots=True)
class Starting:
    """The worker is on its way. doing: what takes its time."""

    worker: str
    doing: str


@dataclass(frozen=True, slots=True)
class Reported:
    worker: str
    report: WorkerReport


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker is gone; another takes its place, unless `is_replaced` is false."""

    worker: str
    reason: str
    is_replaced: bool


@dataclass(frozen=True, slots=True)
class Leaving:
    """The worker's machine is to go soon: it should hand back what it has."""

    worker: str


Event = Starting | Ready | Reported | Lost | Leaving


@dataclass(slots=True)
class _Slot:
    """One place for a worker; each process that takes it has a name of its own."""

    number: int
    actor: Any = None
    num_starts: int = 0
    num_failed_starts: int = 0
    is_ready: bool = False
    node_id: str | None = None  # asked for once nodes drain
    is_leaving: bool = False

    @property
    def worker(self) -> str:
        return f"worker-{self.number}" + (f".{self.num_starts}" if self.num_starts > 1 else "")


class Fleet:
    """Workers on Ray, as a context: they end when it ends, and so does a cluster that it started.

    worker_class: what the actors are; anything with Worker's `start` and `exchange`.
    """

    def __init__(
        self,
        settings: FleetSettings,
        setup: WorkerSetup,
        faults: FaultPolicy,
        *,
        worker_class: type[Any] = Worker,
        python: str | None = None,
    ) -> None:
        """python: the command that starts a worker's; None for this process's own."""
        self._settings = settings
        self._faults = faults
        self._setup = setup
        self._worker_class = worker_class
        self._python = python
        self._num_workers = 0
        self._slots: dict[str, _Slot] = {}
        self._calls: dict[Any, str] = {}  # object ref: worker
        self._started_at = time.monotonic()
        self._options: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        modules = modules_to_ship(self._setup.recipes.values())
        with ExitStack() as stack:  # __exit__ is not called when entering fails
            self._connection = stack.enter_context(
                connect(self._settings.address, num_cpus=self._settings.num_cpus, modules=modules)
            )
            self._num_workers, self._options = _shares(self._settings, self._setup.model.threads)
            self._setup = replace(self._setup, num_writers=int(self._options["num_cpus"]))
            if self._python:
                self._options["runtime_env"]["py_executable"] = self._python
            self._draining = stack.enter_context(DrainingNodes())
            self.grow(1)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for slot in self._slots.values():
                ray.kill(slot.actor)
        finally:
            self._stack.__exit__(kind, error, trace)

    def grow(self, num_rows: int) -> None:
        """Start the workers that so many rows have work for, as far as there are machines for them."""
        self._started_at = time.monotonic()
        for number in range(len(self._slots), min(self._num_workers, num_rows)):
            self._start(_Slot(number))

    @property
    def num_workers(self) -> int:
        """Workers that are ready or on their way."""
        return len(self._slots)

    def exchange(self, worker: str, assignments: Sequence[Assignment]) -> None:
        """Hand rows to a worker that has just been heard of, and wait for its next report."""
        self._calls[self._slots[worker].actor.exchange.remote(tuple(assignments))] = worker

    def drain(self, worker: str) -> None:
        """Have a worker that has just been heard of hand back its rows, and wait for its next report."""
        self._calls[self._slots[worker].actor.exchange.remote((), drain=True)] = worker

    def retire(self, worker: str, *, is_replaced: bool) -> None:
        """End a worker that has handed back all its rows."""
        slot = self._slots.pop(worker)
        ray.kill(slot.actor)
        if is_replaced:
            self._start(slot)

    def wait(self, timeout_s: float) -> list[Event]:
        """Return what happened, as soon as something did. Raises what keeps a worker from starting."""
        refs = list(self._calls)
        if not refs:
            raise FleetError("no worker is left", "see the reasons above; run the same command to go on")
        ray.wait(refs, num_returns=1, timeout=timeout_s)
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        self._check_readiness()
        return self._leaving() + [self._event(ref, self._calls.pop(ref)) for ref in ready]

    def _leaving(self) -> list[Event]:
        """Return those of nodes that are to go, once each."""
        if not self._draining.nodes:
            return []
        staying = [slot for slot in self._slots.values() if slot.is_ready and not slot.is_leaving]
        _ask_nodes([slot for slot in staying if slot.node_id is None])
        leaving = [slot for slot in staying if slot.node_id in self._draining.nodes]
        for slot in leaving:
            slot.is_leaving = True
        return [Leaving(slot.worker) for slot in leaving]

    def _start(self, slot: _Slot) -> None:
        slot.num_starts += 1
        slot.is_ready = slot.is_leaving = False
        slot.node_id = None
        actor_class = ray.remote(self._worker_class)
        slot.actor = actor_class.options(**self._options).remote(self._setup)
        self._slots[slot.worker] = slot
        self._calls[slot.actor.start.remote()] = slot.worker

    def _event(self, ref: Any, worker: str) -> Event:
        slot = self._slots[worker]
        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            # Ours say what the user must change; another worker would say the same.
            if isinstance(error.cause, FramefleetError):
                raise error.cause from None
            return self._lose(slot, str(error))
        except RayError as error:  # the actor or its machine died, or could not be set up
            return self._lose(slot, _cause(error))
        if isinstance(answer, Loading):
            self._calls[slot.actor.start.remote()] = worker
            return Starting(worker, f"{answer.doing} on worker {slot.number + 1} of {len(self._slots)}")
        if isinstance(answer, Hello):
            check_hello(worker, answer)
            slot.is_ready, slot.num_failed_starts = True, 0
            return Ready(worker, answer)
        return Reported(worker, answer)

    def _lose(self, slot: _Slot, reason: str) -> Lost:
        worker, reason = slot.worker, public_text(reason)
        log.warning("%s is lost: %s", worker, reason)
        self._connection.keep_logs = True
        ray.kill(slot.actor)  # cut off rather than dead, it would go on rendering
        del self._slots[worker]
        slot.num_failed_starts += not slot.is_ready
        is_replaced = self._faults.replaces(slot.num_failed_starts)
        if is_replaced:
            self._start(slot)
        return Lost(worker, reason, is_replaced)

    def _check_readiness(self) -> None:
        waited_s = time.monotonic() - self._started_at
        if waited_s > self._settings.ready_timeout_s and not any(s.is_ready for s in self._slots.values()):
            raise FleetError(
                f"no worker was ready after {waited_s:.0f} s; each asks for {self._options['num_gpus']} GPUs "
                f"and {self._options['num_cpus']} CPUs, the cluster has {resources()}",
                "lower fleet.gpus_per_worker or fleet.cpus_per_worker, or raise fleet.ready_timeout_s",
            )


def _ask_nodes(slots: Sequence[_Slot]) -> None:
    """Find out on which nodes these run; not of those that do not answer soon."""
    asked = {slot.actor.__ray_call__.remote(_own_node): slot for slot in slots}
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=NODES_S) if asked else ([], [])
    for ref in answered:
        with suppress(RayError):  # it died: told elsewhere
            asked[ref].node_id = ray.get(ref)


def _own_node(_: Any) -> str:
    node_id: str = ray.get_runtime_context().get_node_id()
    return node_id


def _cause(error: RayError) -> str:
    """The line of Ray's report that says why: the last one, without its colours."""
    lines = [line for line in ANSI.sub("", str(error)).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _shares(settings: FleetSettings, threads: int) -> tuple[int, dict[str, Any]]:
    """How many workers, and Ray's options for each."""
    resources = ray.cluster_resources()
    gpus = settings.gpus_per_worker
    if gpus == "auto":
        gpus = 1 if resources.get("GPU", 0) else 0
    if settings.workers != "auto":
        num_workers = settings.workers
    elif gpus:
        num_workers = int(resources.get("GPU", 0) / gpus)
    else:
        num_workers = max(1, int((os.cpu_count() or 1) if settings.address is None else resources["CPU"]))
    options = {
        "num_gpus": gpus,
        "num_cpus": settings.worker_cpus(_nodes(), gpus_per_worker=gpus),
        "max_restarts": 0,  # a restarted actor keeps its name, and late answers could not be told apart
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads)}},
    }
    return num_workers, options


def _nodes() -> list[tuple[float, float]]:
    """Return how many cores and GPUs each machine has."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(resources.get("CPU", 0), resources.get("GPU", 0)) for resources in found]


def resources() -> str:
    """Return what the cluster has, in words."""
    found = ray.cluster_resources()
    return f"{found.get('GPU', 0):.0f} GPUs and {found.get('CPU', 0):.0f} CPUs"


def check_hello(worker: str, hello: Hello) -> None:
    """Raise FleetError for a worker that runs another build of framefleet than this process."""
    if (hello.version, hello.fingerprint) != (framefleet.__version__, source_fingerprint()):
        raise FleetError(
            f"{worker} on {hello.node} runs framefleet {hello.version}, another build than this one "
            f"({framefleet.__version__})",
            "install the same version on every machine of the cluster",
        )
