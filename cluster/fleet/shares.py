"""In: what a job says of its machines, and the machines there are. Out: how many workers, of what each."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from framefleet.cluster.fleet.machines import Machine
from framefleet.cluster.fleet.settings import ElasticWorkers, FleetSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What each worker takes of its machine. asked: how many there are to be; None: as many as have room."""

    gpus: float
    cpus: float
    asked: int | None

    def __str__(self) -> str:
        return f"{self.gpus:g} GPUs and {self.cpus:g} CPUs"

    def room(self, machines: Sequence[Machine], *, but: Collection[str] = ()) -> int:
        """Return for how many workers there is room on these machines, but for some."""
        found = (machine for machine in machines if machine.node_id not in but)
        return sum(machine.holds(cpus=self.cpus, gpus=self.gpus) for machine in found)

    def num_workers(self, machines: Sequence[Machine], *, but: Collection[str] = ()) -> int:
        return self.asked if self.asked is not None else max(1, self.room(machines, but=but))

    def options(self, *, threads: int, python: str | None) -> dict[str, Any]:
        """Return the Ray options of every worker."""
        runtime_env: dict[str, Any] = {"env_vars": worker_variables(threads=threads)}
        if python:
            runtime_env["py_executable"] = python
        return {
            "num_gpus": self.gpus,
            "num_cpus": self.cpus,
            "max_restarts": 0,  # a restarted actor keeps its name, and late answers would look like its own
            "runtime_env": runtime_env,
        }


def worker_variables(*, threads: int) -> dict[str, str]:
    """Return what is set in the environment of every worker, and of processes that libraries start there."""
    return {"OMP_NUM_THREADS": str(threads), "PYTHONSAFEPATH": "1"}  # its folder is not where modules are


def shares(settings: FleetSettings, machines: Sequence[Machine]) -> Shares:
    """Return what the job's workers take of the cluster."""
    gpus = settings.gpus_per_worker
    if gpus == "auto":
        gpus = 1 if any(machine.gpus for machine in machines) else 0
    nodes = [(machine.cpus, machine.gpus) for machine in machines]
    cpus = settings.worker_cpus(nodes, gpus_per_worker=gpus)
    if isinstance(settings.workers, ElasticWorkers):
        asked: int | None = settings.workers.min
    elif settings.workers != "auto":
        asked = settings.workers
    else:
        # A Ray of our own may give out more cores than there are.
        asked = None if gpus or settings.address is not None else (os.cpu_count() or 1)
    return Shares(gpus=gpus, cpus=cpus, asked=asked)


def machines_in_words(machines: Sequence[Machine]) -> str:
    """Return what these machines have, in words."""
    gpus, cpus = sum(machine.gpus for machine in machines), sum(machine.cpus for machine in machines)
    return f"{gpus:.0f} GPUs and {cpus:.0f} CPUs on {len(machines)} machines"
