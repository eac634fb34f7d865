"""Progress of a training as plain values, and the line that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from framefleet.jobs.show.headline import duration


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainProgress:
    """Steps of a training."""

    # Of `total` steps, in earlier runs too.
    done: int
    total: int
    # The mean of the last steps.
    loss: float
    learning_rate: float
    # Of this run; None before its second step, as is eta_s.
    steps_per_s: float | None
    eta_s: float | None
    # Steps in the last checkpoint.
    kept: int

    def parts(self) -> Sequence[str]:
        parts = [f"{self.done:,}/{self.total:,} steps", f"loss {self.loss:.4g}"]
        if rate := self.steps_per_s:
            parts.append(f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / rate:.1f} s/step")
        if self.eta_s is not None:
            parts.append(f"{duration(self.eta_s)} left")
        parts.append(f"learning rate {self.learning_rate:.2g}")
        if self.kept:
            parts.append(f"checkpoint {self.kept:,}")
        return parts
