"""How far a job is, as plain values: what is shown of rows that are read, rendered, or trained on."""

from __future__ import annotations

from dataclasses import dataclass

from framefleet.cluster.progress import Progress
from framefleet.pipeline.training.reports import Preparing


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """Something that takes its time, and since when by the monotonic clock."""

    what: str
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A table under way: so many of its rows have been read and checked."""

    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsRead:
    """Clips of an output under way into a picture."""

    done: int
    total: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportProgress:
    """An export under way. done: of `total` rows, in earlier runs too. The rest is of this run, or None."""

    done: int
    total: int
    bytes_per_s: float | None
    eta_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreProgress:
    """Clips that are measured. done: of `total` without scores when it began. The rest is None at first."""

    done: int
    total: int
    clips_per_s: float | None
    eta_s: float | None


Standing = (
    Awaited | Checked | ClipsRead | ExportProgress | Preparing | Progress | ScoreProgress | TrainProgress
)
