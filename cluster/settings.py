"""What a job says below `fleet:` and `retries:`: which machines, and how much is borne. Knows no Ray."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from framefleet.pipeline.guards.strict import Strict
from framefleet.pipeline.outputs.patience import OUTAGE_S

# They encode four 480p clips of 81 frames a second, or a dozen large images: more than a GPU renders.
_ENOUGH_CPUS = 4
_SUSPECT_DEATHS = 2  # one death is mostly the machine's own; after a second one with the same row, find out


class FleetSettings(Strict):
    """Which machines render, and how much of them each worker takes."""

    address: str | None = Field(
        default=None, description="A Ray cluster to join (auto or host:port); unset: this machine."
    )
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="auto: one for each GPU, or for each CPU core where there is no GPU."
    )
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        default="auto", description="auto: 1 where the cluster has GPUs."
    )
    cpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        default="auto",
        description="CPU cores that Ray sets aside for each worker; as many clips are encoded at once, and "
        "never less than two. auto: a GPU's share of its machine's, up to 4; 1 where there is no GPU.",
    )
    ready_timeout_s: float = Field(default=600, gt=0, description="How long to wait for the first worker.")

    @property
    def num_cpus(self) -> int:
        """What a cluster of our own gives out: a core of this machine may be more than one worker's."""
        workers = 0 if self.workers == "auto" else self.workers
        return max(os.cpu_count() or 1, int(workers * self.worker_cpus() + 1))

    def worker_cpus(self, nodes: Iterable[tuple[float, float]] = (), *, gpus_per_worker: float = 0) -> float:
        """Return the cores of one worker, which each of these machines has. nodes: cores and GPUs."""
        if self.cpus_per_worker != "auto":
            return self.cpus_per_worker
        shares = [(cpus - 1) / gpus * gpus_per_worker for cpus, gpus in nodes if gpus and gpus_per_worker]
        return max(1, min(_ENOUGH_CPUS, *map(int, shares))) if shares else 1


class FaultPolicy(Strict):
    """When a row, a worker or the whole run is given up."""

    attempts: int = Field(default=3, ge=1, description="Errors after which a row goes to failures/.")
    worker_deaths: int = Field(
        default=3,
        ge=1,
        description="Deaths of its workers, the last with nothing beside it, after which a row goes to "
        "failures/; raise it where machines are taken away often.",
    )
    worker_starts: int = Field(  # one that dies while its model loads will most likely do so again
        default=3,
        ge=1,
        description="Deaths in a row while the model loads, after which a worker is not replaced.",
    )
    store_outage_s: float = Field(
        default=OUTAGE_S,
        ge=0,
        description="How long the output may be out of reach before the job ends.",
    )

    def gives_up(self, num_errors: int) -> bool:
        return num_errors >= self.attempts

    def suspects(self, num_deaths: int) -> bool:
        """Tell whether a row whose workers died is to run alone from now on."""
        return num_deaths >= _SUSPECT_DEATHS

    def quarantines(self, num_deaths: int, *, is_alone: bool) -> bool:
        """is_alone: nothing else was in the worker's hands when it died last."""
        return is_alone and num_deaths >= self.worker_deaths

    def replaces(self, num_failed_starts: int) -> bool:
        return num_failed_starts < self.worker_starts

    def despairs(self, deaths_in_a_row: int, *, num_workers: int) -> bool:
        """Tell whether workers die of something else than of a row. No row ended between these deaths."""
        # One row is given up after `worker_deaths`, so many times more are the machine's.
        return deaths_in_a_row > 4 * self.worker_deaths + 2 * num_workers
