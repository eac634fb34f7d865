"""What a training tells of itself, as plain values for whoever shows or keeps it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparing:
    """Rows whose latents and embeddings are there, if all processes are as far as the first."""

    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one change of the weights was like. step: from 0. loss: the mean over all of its rows.

    grad_norm: None where fp16 overflowed, and the step was left out.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A checkpoint is whole: a killed run goes on after so many steps."""

    steps: int


TrainingReport = Preparing | Step | Kept | str  # text: what is being done
