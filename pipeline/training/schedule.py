"""In: a job's settings and a step. Out: the learning rate of that step."""

from __future__ import annotations

import math

from framefleet.pipeline.training.settings import TrainSettings


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Return the rate of step `step` (from 0). It depends on nothing else, so nothing of it is kept."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    shares = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return settings.learning_rate * shares[settings.schedule]
