"""The model and the output that a job names, opened as other machines find them too. Reads no weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from framefleet.jobs.job.schema import TableJob
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.model.model import ModelSettings, source_of, weights_of
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.sources.weights import Weights
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.outputs.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedModel:
    """A job's model. settings: by absolute path, or by commit. configs: the folder of its small files."""

    settings: ModelSettings
    weights: Weights
    configs: Path
    spec: PipelineSpec


def open_model(job: TableJob) -> OpenedModel:
    """Return the job's model. Raises UserError for one that is not there, or is none."""
    given = ModelSettings(
        **job.model.model_dump(exclude=set(Options.model_fields)),
        options=job.model.options,
        storage_options=job.storage_options,
    )
    source = source_of(given)
    weights = weights_of(given, source)
    configs = weights.configs()
    return OpenedModel(
        settings=replace(given, path=source.path, revision=source.revision),
        weights=weights,
        configs=configs,
        spec=inspect_model(configs),
    )


def open_output(job: TableJob, place: str | None = None) -> Store:
    """Return the job's output, or another place that it writes to: one that other processes see too."""
    place = job.output if place is None else place
    if place.startswith("memory://"):
        raise JobError(f"{place} is what each process has for itself", "use a folder or S3")
    return Store(place, job.storage_options)
