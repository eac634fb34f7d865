"""Progress of a job, as plain values: of rows that are read, rendered, or trained on."""

from __future__ import annotations

from dataclasses import dataclass

from framefleet.cluster.driver.progress import Progress
from framefleet.pipeline.training.reports import Preparing


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """Something that takes its time, and since when by the monotonic clock."""

    what: str
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A table under way: the number of rows that are read and checked."""

    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsProgress:
    """Clips of an output under way.

    doing: what becomes of them, as "exported". done: of `total`, in earlier runs too. The rest is of this
    run, None where it is not known.
    """

    doing: str
    done: int
    total: int
    clips_per_s: float | None = None
    bytes_per_s: float | None = None
    eta_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainProgress:
    """A training under way.

    done: of `total` steps, in earlier runs too. loss: the mean of the last steps. steps_per_s: of this run;
    None before its second step, as is eta_s. kept: the steps in the last checkpoint.
    """

    done: int
    total: int
    loss: float
    learning_rate: float
    steps_per_s: float | None
    eta_s: float | None
    kept: int


Standing = Awaited | Checked | ClipsProgress | Preparing | Progress | TrainProgress
