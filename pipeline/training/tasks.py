"""From the part that a job trains to the task that trains it. Imports one kind: each brings much along."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from framefleet.pipeline.specs.families import DENOISERS
from framefleet.pipeline.training.freezing import choose
from framefleet.pipeline.training.settings import TrainSettings
from framefleet.pipeline.training.task import Task

COMPONENTS = {"denoiser": DENOISERS, "autoencoder": ("vae",), "text_encoder": ("text_encoder",)}


def trained_component(settings: TrainSettings, components: Sequence[str]) -> str | None:
    """Return which component will be trained: of several the one that `only` names, or the first."""
    names = sorted(name for name in components if name.startswith(COMPONENTS[settings.part]))
    heads = [pattern.partition(".")[0] for pattern in settings.only]
    named = [name for name in names if any(fnmatchcase(name, head) for head in heads)]
    return next(iter(named or names), None)


def task_for(pipe: Any, settings: TrainSettings) -> Task:
    """Return the task; of its components' weights those that the job chooses require gradients."""
    task = _task(pipe, settings)
    choose(task.trained, settings.only, settings.freeze, settings.lora is not None)
    return task


def _task(pipe: Any, settings: TrainSettings) -> Task:
    if settings.part == "denoiser":
        from framefleet.pipeline.training.denoiser.task import DenoiserTask

        return DenoiserTask(pipe, settings)
    if settings.part == "autoencoder":
        from framefleet.pipeline.training.autoencoder import AutoencoderTask

        return AutoencoderTask(pipe)
    from framefleet.pipeline.training.text_encoder import TextEncoderTask

    return TextEncoderTask(pipe)
