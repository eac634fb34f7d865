"""From the part that a job trains to the task that trains it. Imports one kind only: each brings much along."""

from __future__ import annotations

from typing import Any

from framefleet.pipeline.specs.families import DENOISERS
from framefleet.pipeline.training.settings import Part, TrainSettings
from framefleet.pipeline.training.task import Task

COMPONENTS = {"denoiser": DENOISERS, "autoencoder": ("vae",), "text_encoder": ("text_encoder",)}


def trained_component(part: Part, components: tuple[str, ...]) -> str | None:
    """Return which of a pipeline's components a part is: the first, where there are several."""
    return min((name for name in components if name.startswith(COMPONENTS[part])), default=None)


def task_for(pipe: Any, settings: TrainSettings) -> Task:
    """Return the task; of its components' weights those that the job chooses require gradients."""
    if settings.part == "denoiser":
        from framefleet.pipeline.training.denoiser import DenoiserTask

        return DenoiserTask(pipe, settings)
    raise NotImplementedError(settings.part)
