"""What a job says below `fleet:` and `retries:`: which machines, and how much is borne. Knows no Ray."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from framefleet.pipeline.guards.strict import Strict
from framefleet.pipeline.outputs.stores.patience import OUTAGE_S

# They encode four 480p clips of 81 frames a second, or a dozen large images: more than a GPU renders.
_ENOUGH_CPUS = 4
_ROWS_TO_BLAME = 4
_STALL_FACTOR = 10
_SHORTEST_STALL_S = 60.0  # a disk that spins up, a link that comes back, a kernel that is tuned
_SUSPECT_DEATHS = 2  # one death is mostly the machine's own; after a second one with the same row, find out


class FleetSettings(Strict):
    """Which machines render, and how much of them each worker takes."""

    address: str | None = Field(
        default=None, description="A Ray cluster to join (auto or host:port); unset: this machine."
    )
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="auto: one for each GPU, or for each CPU core where there is no GPU."
    )
    # A worker renders on one GPU: more would be paid for and idle.
    gpus_per_worker: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        default="auto",
        description="At most 1, as a worker renders on one GPU; 0.5: two workers share one. auto: 1 "
        "where the cluster has GPUs.",
    )
    cpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        default="auto",
        description="CPU cores that Ray sets aside for each worker; as many clips are encoded at once, and "
        "never less than two. auto: a GPU's share of its machine's, up to 4; 1 where there is no GPU.",
    )
    ready_timeout_s: float = Field(
        default=600,
        gt=0,
        description="How long to go without any worker that is ready, and how long one may load its model.",
    )
    silence_s: float = Field(
        # `exchange` answers each second; a machine under load, or a collection of garbage, may be late.
        default=12,  # so that rows are under way elsewhere within 15 s of a cut link
        ge=5,
        description="A worker or a cluster that has not answered for so long is given up: its rows move.",
    )

    @property
    def paid_gpus(self) -> float:
        """How many GPUs of a worker are paid for: one, or the worker itself, unless the job says how many."""
        return 1 if self.gpus_per_worker == "auto" else self.gpus_per_worker or 1

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
    faults: int = Field(
        default=3,
        ge=1,
        description="Faults in a row of one machine, or of one worker, with no row done in between, after "
        "which it is no longer used.",
    )
    stall_s: float = Field(
        default=1800,  # a first forward may be compiled for many minutes
        gt=0,
        description="A worker whose rows have not come further for so long is ended; sooner where it is "
        "known how long such rows take.",
    )

    drain_s: float = Field(  # two steps of the largest videos, then clips and a gigabyte a row to upload
        default=120,
        ge=0,
        description="How long, after Ctrl-C, SIGTERM or SIGHUP, workers have to store what is done.",
    )
    checkpoint_every_s: float = Field(  # at most a gigabyte of a row of ten minutes: 2 MB/s for each GPU
        default=600,
        ge=0,
        description="How often rows under way are kept half-done in checkpoints/, so that a worker's death "
        "costs no more of them; 0: never.",
    )
    store_outage_s: float = Field(
        default=OUTAGE_S,
        ge=0,
        description="How long the output, the table or images and videos may be out of reach before the "
        "job ends.",
    )

    def gives_up(self, num_errors: int) -> bool:
        return num_errors >= self.attempts

    def suspects(self, num_strikes: int) -> bool:
        """Tell whether a row whose workers died is to run alone from now on."""
        return num_strikes >= _SUSPECT_DEATHS

    def quarantines(self, num_deaths: int, *, is_alone: bool) -> bool:
        """is_alone: nothing else was in the worker's hands when it died last."""
        return is_alone and num_deaths >= self.worker_deaths

    def blocks(self, num_faults: int) -> bool:
        """Tell whether a machine, or a worker, had enough faults in a row."""
        return num_faults >= self.faults

    def despairs(self, num_deaths: int, *, is_proven: bool) -> bool:
        """Tell whether workers die of something else than of a row. No row was done between these deaths.

        is_proven: rows were done on that machine before.
        """
        # There one row is given up after `worker_deaths`. Elsewhere none is: once each that was struck runs
        # alone, they take turns.
        to_blame = _ROWS_TO_BLAME * self.worker_deaths if is_proven else _SUSPECT_DEATHS + _ROWS_TO_BLAME
        return num_deaths > max(self.faults, to_blame)

    @property
    def longest_writing_s(self) -> float:
        """How long a clip may be on its way from its frames to the store."""
        return self.stall_s + self.store_outage_s

    def longest_still_s(self, seconds_per_row: float | None, *, num_rows: int) -> float:
        """Return how long the rows of a worker may come no further.

        seconds_per_row: that the worker needed for such rows, if it has done any. num_rows: of a forward.
        """
        if seconds_per_row is None:
            return self.stall_s
        # One row alone, as a plain call, may take as long as all rows of a forward together.
        return min(self.stall_s, max(_SHORTEST_STALL_S, _STALL_FACTOR * num_rows * seconds_per_row))
