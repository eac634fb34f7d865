"""The model that a job names, opened as other machines find it too. Reads no weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from framefleet.jobs.job.schema import TableJob
from framefleet.pipeline.model.model import source_of, weights_of
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.settings import ModelSettings
from framefleet.pipeline.model.sources.weights import Weights
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model


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
