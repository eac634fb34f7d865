"""From the steps of a training to where it stands: loss, rate and time left, as plain values."""

from __future__ import annotations

from collections import deque

from framefleet.jobs.show.standing import TrainProgress
from framefleet.pipeline.training.reports import Step

# Losses jump with the noise that was drawn: the mean of some shows where they go.
STEPS_SHOWN = 20


class Pace:
    """Follows one run."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._losses: deque[float] = deque(maxlen=STEPS_SHOWN)
        self._times: deque[float] = deque(maxlen=STEPS_SHOWN)
        self.kept = 0
        self.num_steps = 0

    def stepped(self, step: Step, now: float) -> TrainProgress:
        """Return where the training stands after a step. now: any steadily rising seconds."""
        self.num_steps += 1
        self._losses.append(step.loss)
        self._times.append(now)
        passed = self._times[-1] - self._times[0]
        rate = (len(self._times) - 1) / passed if passed > 0 else None
        done = step.step + 1
        return TrainProgress(
            done=done,
            total=self._total,
            loss=sum(self._losses) / len(self._losses),
            learning_rate=step.learning_rate,
            steps_per_s=rate,
            eta_s=(self._total - done) / rate if rate else None,
            kept=self.kept,
        )
