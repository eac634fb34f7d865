"""Opens the models that a job names, with settings that also work on other machines. Reads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framefleet.cluster.fleet.settings import FleetSettings
from framefleet.jobs.job.schema import Job, ModelSection
from framefleet.pipeline.errors import JobError, ModelError, Refused
from framefleet.pipeline.guards.mistakes import naming_model
from framefleet.pipeline.model import ip_adapter
from framefleet.pipeline.model.device_placement import Placement, placer_of
from framefleet.pipeline.model.license import License, license_of
from framefleet.pipeline.model.lora import Lora, fetch_lora, loras_of
from framefleet.pipeline.model.model import ModelSettings, source_of, weights_of
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.sources.parts import base_and_parts, packed_by
from framefleet.pipeline.model.sources.weights import Weights
from framefleet.pipeline.model.specs.dtypes import check_dtype
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model

if TYPE_CHECKING:
    from framefleet.pipeline.engine import Engine

_OF_PLAIN_CALLS = ("recipe", "loras", "second_models", "keep", "keep_embeddings")


def place_of(name: str) -> str:
    """Return the key of a job's model: "models.wan" for wan, or "model" for the only one, without a name."""
    return f"models.{name}" if name else "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedModel:
    settings: ModelSettings  # by absolute path, or by commit
    weights: Weights
    configs: Path  # the folder of its small files
    spec: PipelineSpec
    adapter_files: Mapping[str, str]  # of its IP-adapter, each with its SHA-256
    license: License  # of the weights, and who says so
    misfits: Mapping[str, Refused] = field(default_factory=dict)  # LoRAs that do not fit it

    @property
    def packed(self) -> dict[str, str]:
        """The method of each component whose weights are packed."""
        return packed_by(self.configs, self.weights.components, self.weights.parts)


def open_model(section: ModelSection, storage_options: Mapping[str, Any]) -> OpenedModel:
    """Open a model of a job. Raises UserError if it is missing, or is not a model."""
    path, parts = base_and_parts(section.path, section.base, section.parts)
    values = {name: value for name, value in section if name not in {*Options.model_fields, "base"}}
    unresolved = ModelSettings(
        **values | {"path": path, "parts": parts, "ip_adapter": ip_adapter.ip_adapter_of(section.ip_adapter)},
        options=section.options,
        storage_options=storage_options,
    )
    source = source_of(unresolved)
    weights = weights_of(unresolved, source)
    configs = weights.configs()
    spec = inspect_model(configs)
    license = license_of(source, spec.preset, unresolved.license, usual=spec.family.license)
    settings = replace(
        unresolved,
        path=source.path,
        revision=source.revision,
        parts={file.name: file.part for file in weights.parts},
        license=license.name,
    )
    if adapter := ip_adapter.fetch_ip_adapter(unresolved.ip_adapter, unresolved.storage_options):
        settings = replace(settings, ip_adapter=adapter.adapter)
        spec = ip_adapter.with_ip_adapter(spec, unresolved.options)
    return OpenedModel(
        settings=settings,
        weights=weights,
        configs=configs,
        spec=spec,
        adapter_files=adapter.digests if adapter else {},
        license=license,
    )


def open_engine(job: Job, engine: Engine) -> OpenedModel:
    """Return what takes the place of the model in a job with an engine. JobError for what no engine heeds."""
    fields = type(job).model_fields
    for key in _OF_PLAIN_CALLS:
        if getattr(job, key) != fields[key].get_default(call_default_factory=True):
            raise JobError(f"{key} is of no use to an engine, which calls no pipeline here", "leave it out")
    if engine.limit is not None and job.fleet.max_workers != 1:
        problem = "engine.max_cost needs fleet.workers: 1, since one process must know of all requests"
        raise JobError(problem, "set it; one worker asks all servers")
    weights = engine.weights()
    return OpenedModel(
        settings=ModelSettings(path=engine.name, device="cpu", engine=engine, license=engine.license),
        weights=weights,
        configs=weights.source.fetch(()),
        spec=engine.spec(),
        adapter_files={},
        license=license_of(weights.source, None, engine.license),
    )


def _placed(section: ModelSection, fleet: FleetSettings) -> ModelSection:
    """Return the section, placed on all GPUs of a worker as the job says, or else by components."""
    gpus = fleet.gpus_per_worker
    if section.placement or gpus == "auto" or gpus <= 1:
        return section
    return section.model_copy(update={"placement": Placement(type="components")})


def open_models(job: Job) -> dict[str, OpenedModel]:
    """Return the job's models by name, each with the LoRAs that fit it.

    Raises UserError for a model that cannot be used as the job says, and for a LoRA that fits none of them.
    """
    models: dict[str, OpenedModel] = {}
    for name, section in job.by_name.items():
        with naming_model(place_of(name)):
            models[name] = (
                open_engine(job, job.engine)
                if job.engine
                else open_model(_placed(section, job.fleet), job.storage_options)
            )
    declared = loras_of({name: lora.model_dump() for name, lora in job.loras.items()})
    files = {name: fetch_lora(name, lora, job.storage_options) for name, lora in declared.items()}
    loras: dict[str, dict[str, Lora]] = {name: {} for name in models}
    misfits: dict[str, dict[str, Refused]] = {name: {} for name in models}
    for group in [files] if len(models) == 1 else [{name: file} for name, file in files.items()]:
        errors = []
        for model_name, model in models.items() if group else ():
            from framefleet.pipeline.model.lora_loading import check_loras_fit  # imports torch

            try:
                allow = model.settings.options.allow_unmatched_weights
                check_loras_fit(group, model.weights, model.spec, allow_unmatched=allow)
                loras[model_name] |= {name: file.lora for name, file in group.items()}
            except ModelError as error:
                errors.append(error)
                misfits[model_name] |= dict.fromkeys(group, Refused(reason=error.problem, fix=error.fix))
        if errors and len(errors) == len(models):
            raise errors[0]
    for name, model in models.items():
        settings = replace(model.settings, loras=loras[name])
        models[name] = replace(model, settings=settings, misfits=misfits[name])
        with naming_model(place_of(name)):
            _check_model(job, job.by_name[name], models[name])
    return models


def _check_model(job: Job, section: ModelSection, model: OpenedModel) -> None:
    """Raise UserError for a dtype, option or device that the model cannot use. section: the model's."""
    if model.settings.device not in ("auto", "cpu"):  # workers report whether it is there
        import torch

        try:
            torch.device(model.settings.device)
        except RuntimeError:
            problem = f"torch has no device {model.settings.device!r}"
            raise ModelError(problem, "set `model.device` to cpu, cuda or auto") from None
    check_dtype(model.settings.dtype, model.spec.components)
    if model.spec.family.is_guarded:
        from framefleet.pipeline.model.guardrail import check_guardrail  # imports torch

        check_guardrail(model.spec)
    if placement := model.settings.placement:
        placer = placer_of(placement, model.settings.device)
        num_gpus = max(1, int(job.fleet.paid_gpus))
        num = placement.devices or num_gpus
        try:
            placer.check(model.settings, model.spec, model.packed)
            if not _is_on_cpu(model.settings, job.fleet):
                placer.check_gpus(num_gpus)
        except ModelError as error:
            if section.placement:
                raise
            problem = f"fleet.gpus_per_worker is {num}, so {error.problem}"
            raise ModelError(problem, f"{error.fix}, or use one GPU per worker") from None
        if num > 1:
            from framefleet.pipeline.model.options.tuning import blank_denoisers  # imports torch

            placer.check_denoisers(blank_denoisers(model.weights.components, model.configs), num)
    if model.settings.options == Options():
        return
    from framefleet.pipeline.model.options.tuning import check_options  # imports torch

    check_options(
        model.settings,
        model.spec,
        folder=model.configs,
        components=model.weights.components,
        parts=model.weights.parts,
        device="cpu" if _is_on_cpu(model.settings, job.fleet) else None,
    )


def _is_on_cpu(settings: ModelSettings, fleet: FleetSettings) -> bool:
    """Return whether no worker can have a GPU. Workers of a cluster may, even if this machine has none."""
    gpus = fleet.gpus_per_worker
    if settings.device != "auto" or gpus == 0:
        return settings.device in ("auto", "cpu")
    if gpus != "auto" or fleet.address is not None:
        return False
    import torch

    return not torch.cuda.is_available()
