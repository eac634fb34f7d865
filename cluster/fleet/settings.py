"""What a job says below `fleet:`: which machines render, and how much a worker takes. Imports no Ray."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from framefleet.cluster.fleet.machines import Machine
from framefleet.pipeline.errors import JobError, count_text
from framefleet.pipeline.guards.strict_model import MustBe, Strict

# These encode four 480p clips of 81 frames per second, or a dozen large images: more than a GPU renders.
_ENOUGH_CPUS = 4
_MAX_GPUS = 64  # of one machine


def _are_whole(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise PydanticCustomError("gpus", "at most 1, or a whole number of GPUs")
    return gpus


class ElasticWorkers(Strict):
    """As many workers as the rows left need. A Ray autoscaler adds and removes machines for them."""

    min: int = Field(default=1, ge=1, description="Minimum number of workers.")
    max: int = Field(ge=1, description="Maximum number of workers.")
    target_s: float = Field(
        default=900,
        gt=0,
        description="Seconds that the remaining rows should take; less time needs more workers.",
    )

    @field_validator("max")
    @classmethod
    def _is_at_least_min(cls, most: int, others: ValidationInfo) -> int:
        if most < (least := others.data.get("min", most)):
            raise PydanticCustomError("workers", "at least `min`, which is {min}", {"min": least})
        return most


class FleetSettings(Strict):
    """Which machines render, and how much of them each worker takes."""

    address: (
        Annotated[
            str,
            Field(pattern=r"^(auto|[^/]+:\d{1,5})$"),
            MustBe("auto, or HOST:PORT of the cluster's head, e.g. 10.0.0.5:6379"),
        ]
        | None
    ) = Field(
        default=None,
        description="A Ray cluster to join (auto, or HOST:PORT of its head); unset: this machine.",
    )
    workers: Annotated[int, Field(ge=1)] | ElasticWorkers | Literal["auto"] = Field(
        default="auto",
        description="auto: as many as the GPUs allow, e.g. 4 workers of 2 GPUs each; where there is no GPU, "
        "one for each CPU core. {min: 1, max: 64}: as many as the remaining rows need.",
    )
    gpus_per_worker: (
        Annotated[float, Field(ge=0, le=_MAX_GPUS), AfterValidator(_are_whole)] | Literal["auto"]
    ) = Field(
        default="auto",
        description="GPUs of one machine for each worker; model.placement says how they are used. 0.5: two "
        "workers share one. auto: 1 if the cluster has GPUs.",
    )
    cpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        default="auto",
        description="CPU cores that Ray reserves for each worker, which encodes as many clips at once (at "
        "least two). auto: a GPU's share of its machine's cores, at most 4; 1 without GPUs.",
    )
    same_gpu: bool = Field(
        default=False,
        description="Use only machines with the GPU (without GPUs: the processor) of the first worker, or of "
        "the output's first record. Then all rows have the bits of the same type of machine.",
    )
    ready_timeout_s: float = Field(
        default=600,
        gt=0,
        description="Seconds to wait for a ready worker before the job ends, and the longest time to load a "
        "model.",
    )
    silence_s: float = Field(
        # `exchange` answers each second; a machine under load, or a collection of garbage, may be late.
        default=12,  # so that rows are under way elsewhere within 15 s of a cut link
        ge=5,
        description="Give up a worker or a cluster that has not answered for this many seconds; its rows go "
        "to other workers.",
    )

    @property
    def paid_gpus(self) -> float:
        """How many GPUs to pay for each worker: 1 (also without a GPU), unless the job says how many."""
        return 1 if self.gpus_per_worker == "auto" else self.gpus_per_worker or 1

    @property
    def elastic(self) -> ElasticWorkers | None:
        """How the number of workers follows the rows left; None if it does not."""
        return self.workers if isinstance(self.workers, ElasticWorkers) else None

    @property
    def max_workers(self) -> int | None:
        """How many workers there are at most; None: as many as have room."""
        most = self.elastic.max if self.elastic else self.workers
        return most if isinstance(most, int) else None

    @property
    def most_on_cpu(self) -> int:
        """How many workers without a GPU this machine has room for, at most those that the job wants."""
        return self.max_workers or max(1, int((os.cpu_count() or 1) / max(1, self.worker_cpus())))

    @property
    def num_cpus(self) -> int:
        """How many CPUs our own cluster offers: several workers may share a core of this machine."""
        return max(os.cpu_count() or 1, int((self.max_workers or 0) * self.worker_cpus() + 1))

    def worker_cpus(self, nodes: Iterable[tuple[float, float]] = (), *, gpus_per_worker: float = 0) -> float:
        """Return the cores of one worker, which every machine has for it. nodes: cores and GPUs of each."""
        if self.cpus_per_worker != "auto":
            return self.cpus_per_worker
        shares = [(cpus - 1) / gpus * gpus_per_worker for cpus, gpus in nodes if gpus and gpus_per_worker]
        return max(1, min(_ENOUGH_CPUS, *map(int, shares))) if shares else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What each worker takes of its machine. asked: the number of workers; None: as many as have room."""

    gpus: float
    cpus: float
    asked: int | None

    def __str__(self) -> str:
        return f"{count_text(self.gpus, 'GPU')} and {count_text(self.cpus, 'CPU')}"

    def room(self, machines: Sequence[Machine], *, but: Collection[str] = ()) -> int:
        """Return how many workers have room on these machines, without those in `but`."""
        usable = (machine for machine in machines if machine.node_id not in but)
        return sum(machine.holds(cpus=self.cpus, gpus=self.gpus) for machine in usable)

    def num_workers(self, machines: Sequence[Machine], *, but: Collection[str] = ()) -> int:
        return self.asked if self.asked is not None else max(1, self.room(machines, but=but))

    def options(self, *, threads: int, python: str | None) -> dict[str, Any]:
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
    """Return the environment variables of every worker, and of processes that libraries start there."""
    return {"OMP_NUM_THREADS": str(threads), "PYTHONSAFEPATH": "1"}  # no imports from its current folder


def shares(settings: FleetSettings, machines: Sequence[Machine]) -> Shares:
    gpus = settings.gpus_per_worker
    if gpus == "auto":
        gpus = 1 if any(machine.gpus for machine in machines) else 0
    nodes = [(machine.cpus, machine.gpus) for machine in machines]
    cpus = settings.worker_cpus(nodes, gpus_per_worker=gpus)
    num_workers = settings.elastic.min if settings.elastic else settings.max_workers
    if num_workers is None and not gpus and settings.address is None:
        num_workers = os.cpu_count() or 1  # a Ray of our own may give out more cores than there are
    return Shares(gpus=gpus, cpus=cpus, asked=num_workers)


def machines_in_words(machines: Sequence[Machine]) -> str:
    return f"{resources_in_words(machines)} on {count_text(len(machines), 'machine')}"


def resources_in_words(machines: Sequence[Machine]) -> str:
    gpus, cpus = sum(machine.gpus for machine in machines), sum(machine.cpus for machine in machines)
    return f"{count_text(gpus, 'GPU')} and {count_text(cpus, 'CPU')}"


def missing_gpu(
    fleet: FleetSettings,
    devices: Mapping[tuple[str | int, ...], str],
    places: Mapping[tuple[str | int, ...], str],
) -> JobError | None:
    """Return an error if a value of a job needs a GPU that this machine lacks; else None.

    devices: those of the models. places: where values were written. Both by the keys of the job.
    """
    if fleet.address is not None:
        return None
    gpus = 0.0 if fleet.gpus_per_worker == "auto" else fleet.gpus_per_worker
    keys: list[tuple[str | int, ...]] = [("fleet", "gpus_per_worker")] if gpus else []
    keys += [key for key, device in devices.items() if device.startswith("cuda")]
    num = num_gpus_here() if keys else 0
    if not keys or num >= max(1, gpus):
        keys = [key for key, device in devices.items() if device == "mps" and sys.platform != "darwin"]
        num = 0
    if not keys:
        return None
    value = devices.get(keys[0], f"{gpus:g}")
    has = f"has {count_text(num, 'GPU')}" if num else "has no GPU"
    place = f"{places[keys[0]]}: " if keys[0] in places else ""
    return JobError(
        f"{place}{'.'.join(map(str, keys[0]))} is {value}, but this machine {has}",
        f"{'lower it' if num else 'leave it out to use the CPU'}, or name a cluster with `fleet.address`",
    )


def num_gpus_here() -> int:
    from ray._private.accelerators import get_all_accelerator_managers

    all_managers = get_all_accelerator_managers()
    managers = [manager for manager in all_managers if manager.get_resource_name() == "GPU"]
    visible = [manager.get_current_process_visible_accelerator_ids() for manager in managers]
    # "-1" hides all GPUs, too.
    visible = [ids and [id_ for id_ in ids if not id_.startswith("-")] for ids in visible]
    counts = [manager.get_current_node_num_accelerators() for manager in managers]
    return sum(n if ids is None else min(n, len(ids)) for n, ids in zip(counts, visible, strict=True))
