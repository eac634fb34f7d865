"""What a render job names beside the table: its model, checked, LoRAs and second models, opened."""

from __future__ import annotations

from framefleet.jobs.job.model import OpenedModel
from framefleet.jobs.job.schema import Job
from framefleet.pipeline.model.loras.asked import Lora, loras_of
from framefleet.pipeline.model.loras.files import fetch_lora
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.settings import ModelSettings
from framefleet.pipeline.model.specs.dtypes import check_dtype
from framefleet.pipeline.recipes.second_model import SecondModel, open_second_models


def check_model(job: Job, model: OpenedModel) -> None:
    """Raise UserError for a dtype or an option that the model does not have."""
    check_dtype(model.settings.dtype, model.spec.components)
    if job.model.options == Options():
        return
    from framefleet.pipeline.model.options.checks import check_options  # imports torch

    check_options(
        model.settings.options,
        model.spec,
        folder=model.configs,
        components=model.weights.components,
        device="cpu" if _is_on_cpu(job) else None,
    )


def _is_on_cpu(job: Job) -> bool:
    """Tell whether no worker can have a GPU; those of a cluster may, where this machine has none."""
    if job.model.device != "auto" or job.fleet.address is not None:
        return job.model.device == "cpu"
    import torch

    return not torch.cuda.is_available()


def open_loras(job: Job, model: OpenedModel) -> dict[str, Lora]:
    """Return the job's LoRAs as other machines find them too. They are read here: they must fit the model."""
    given = loras_of({name: lora.model_dump() for name, lora in job.loras.items()})
    files = {name: fetch_lora(name, lora, job.storage_options) for name, lora in given.items()}
    if files:
        from framefleet.pipeline.model.loras.loading import check_loras_fit

        check_loras_fit(files, model.weights, model.spec)
    return {name: file.lora for name, file in files.items()}


def second_models_of(job: Job) -> dict[str, SecondModel]:
    """Return the job's second models as other machines find them too."""
    options = job.storage_options
    given = {
        name: ModelSettings(**section.model_dump(), storage_options=options)
        for name, section in job.second_models.items()
    }
    return open_second_models(given)
