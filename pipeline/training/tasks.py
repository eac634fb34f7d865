"""From the part that a job trains to the task that trains it. Imports one kind: each brings much along."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.model.specs.model_index import DENOISERS
from framefleet.pipeline.training.freezing import choose_parameters, matches_any
from framefleet.pipeline.training.settings import TrainSettings
from framefleet.pipeline.training.task import TrainingTask

_COMPONENTS = {"autoencoder": "vae", "text_encoder": "text_encoder"}


def trained_component(settings: TrainSettings, components: Iterable[str]) -> str:
    """Return which of a pipeline's components is trained. Raises JobError for none, and for two denoisers.

    Their batches are not of the same noise.
    """
    known = list(components)
    if settings.part != "denoiser":
        names = [name for name in known if name == _COMPONENTS[settings.part]]
    else:
        names = sorted(name for name in known if name.startswith(DENOISERS))
    if not names:
        raise JobError(f"train.part is {settings.part}, and the model has none", f"it has {', '.join(known)}")
    chosen = names if len(names) == 1 else [name for name in names if _is_chosen(name, settings)]
    if len(chosen) != 1:
        raise JobError(
            f"train: one job trains one denoiser, and the model has {', '.join(names)}",
            "set `only: [transformer]` for high noise, `only: [transformer_2]` for low; run a job for each",
        )
    return chosen[0]


def _is_chosen(component: str, settings: TrainSettings) -> bool:
    """Whether the patterns leave anything of a component to train."""
    heads = [pattern.partition(".")[0] for pattern in settings.only]
    frozen = [pattern.removesuffix(".*") for pattern in settings.freeze]
    return (not heads or matches_any(component, heads)) and not matches_any(component, frozen)


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
