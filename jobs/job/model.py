"""The model that a job names, opened as other machines find it too. Reads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from framefleet.jobs.job.schema import TableJob
from framefleet.pipeline.model.ip_adapter import fetch_ip_adapter, ip_adapter_of, with_ip_adapter
from framefleet.pipeline.model.license import License, license_of
from framefleet.pipeline.model.model import ModelSettings, source_of, weights_of
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.sources.weights import Weights
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedModel:
    """A job's model. settings: by absolute path, or by commit. configs: the folder of its small files.

    adapter_files: the SHA-256 of those of its IP-adapter. license: of the weights, and who says so.
    """

    settings: ModelSettings
    weights: Weights
    configs: Path
    spec: PipelineSpec
    adapter_files: Mapping[str, str]
    license: License


def open_model(job: TableJob) -> OpenedModel:
    """Return the job's model. Raises UserError for one that is not there, or is none."""
    said = job.model.model_dump(exclude=set(Options.model_fields))
    given = ModelSettings(
        **said | {"ip_adapter": ip_adapter_of(said["ip_adapter"])},
        options=job.model.options,
        storage_options=job.storage_options,
    )
    source = source_of(given)
    weights = weights_of(given, source)
    configs = weights.configs()
    spec = inspect_model(configs)
    license = license_of(source, spec.preset, given.license)
    settings = replace(given, path=source.path, revision=source.revision, license=license.name)
    if adapter := fetch_ip_adapter(given.ip_adapter, given.storage_options):
        settings, spec = replace(settings, ip_adapter=adapter.adapter), with_ip_adapter(spec, given.options)
    return OpenedModel(
        settings=settings,
        weights=weights,
        configs=configs,
        spec=spec,
        adapter_files=adapter.digests if adapter else {},
        license=license,
    )
