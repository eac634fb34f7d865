"""What a job says below `fleet:`: which machines render. Does not import Ray."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from framefleet.pipeline.guards.strict_model import Strict

# They encode four 480p clips of 81 frames a second, or a dozen large images: more than a GPU renders.
_ENOUGH_CPUS = 4


class ElasticWorkers(Strict):
    """As many workers as the rows left need. A Ray autoscaler adds and removes machines for them."""

    min: Annotated[int, Field(ge=1)] = 1
    max: Annotated[int, Field(ge=1)]
    target_s: float = Field(
        default=900,
        gt=0,
        description="Seconds that the remaining rows should take; less time needs more workers.",
    )

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.min > self.max:
            raise PydanticCustomError("workers", "{{min: N, max: M}} with N at most M")
        return self


class FleetSettings(Strict):
    """Which machines render, and how much of them each worker takes."""

    address: str | None = Field(
        default=None, description="A Ray cluster to join (auto or host:port); unset: this machine."
    )
    workers: Annotated[int, Field(ge=1)] | ElasticWorkers | Literal["auto"] = Field(
        default="auto",
        description="auto: one for each GPU, or for each CPU core where there is no GPU. "
        "{min: 1, max: 64}: as many as the rows left need.",
    )
    encoders: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="How many of the workers only encode text, where encoders and denoiser do not fit on one "
        "GPU: the others have no text encoders. Implies keep_embeddings and same_gpu.",
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
    same_gpu: bool = Field(
        default=False,
        description="Use only workers with the GPU of the first one, or of the output's first record; where "
        "there is no GPU, with its processor. Then all rows have the bits of one kind of machine.",
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

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        if self.encoders and self.max_workers is not None and self.max_workers <= self.encoders:
            raise PydanticCustomError("encoders", "fewer encoders than workers, as the others denoise")
        return self

    @property
    def paid_gpus(self) -> float:
        """How many GPUs of a worker are paid for: one, or the worker itself, unless the job says how many."""
        return 1 if self.gpus_per_worker == "auto" else self.gpus_per_worker or 1

    @property
    def elastic(self) -> ElasticWorkers | None:
        """How the number of workers follows the rows left; None where it does not."""
        return self.workers if isinstance(self.workers, ElasticWorkers) else None

    @property
    def max_workers(self) -> int | None:
        """How many workers there are at most; None: as many as have room."""
        if isinstance(self.workers, ElasticWorkers):
            return self.workers.max
        return None if self.workers == "auto" else self.workers

    @property
    def num_cpus(self) -> int:
        """What a cluster of our own gives out: a core of this machine may be more than one worker's."""
        return max(os.cpu_count() or 1, int((self.max_workers or 0) * self.worker_cpus() + 1))

    def worker_cpus(self, nodes: Iterable[tuple[float, float]] = (), *, gpus_per_worker: float = 0) -> float:
        """Return the cores of one worker, which each of these machines has. nodes: cores and GPUs."""
        if self.cpus_per_worker != "auto":
            return self.cpus_per_worker
        shares = [(cpus - 1) / gpus * gpus_per_worker for cpus, gpus in nodes if gpus and gpus_per_worker]
        return max(1, min(_ENOUGH_CPUS, *map(int, shares))) if shares else 1
