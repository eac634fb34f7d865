"""From the part that a job trains to the task that trains it. Imports one kind: each brings much along."""

from __future__ import annotations

from typing import Any

from framefleet.pipeline.training.freezing import choose_parameters
from framefleet.pipeline.training.settings import TrainSettings
from framefleet.pipeline.training.task import TrainingTask


def task_for(pipe: Any, settings: TrainSettings) -> TrainingTask:
    """Return the task; of its components' weights those that the job chooses require gradients."""
    task = _task(pipe, settings)
    choose_parameters(task.trained, settings.only, settings.freeze, settings.lora is not None)
    return task


def _task(pipe: Any, settings: TrainSettings) -> TrainingTask:
    if settings.part == "denoiser":
        from framefleet.pipeline.training.denoiser.task import DenoiserTask

        return DenoiserTask(pipe, settings)
    if settings.part == "autoencoder":
        from framefleet.pipeline.training.autoencoder import AutoencoderTask

        return AutoencoderTask(pipe)
    from framefleet.pipeline.training.text_encoder import TextEncoderTask

    return TextEncoderTask(pipe)
