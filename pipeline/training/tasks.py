"""From the part that a job trains to the task that trains it."""

from __future__ import annotations

from typing import Any

from framefleet.pipeline.training.settings import TrainSettings
from framefleet.pipeline.training.task import Task


def task_for(pipe: Any, settings: TrainSettings) -> Task:
    """Return the task; of its components' weights those that the job chooses require gradients.

    Imports one kind only: each brings much of diffusers or transformers.
    """
    raise NotImplementedError
