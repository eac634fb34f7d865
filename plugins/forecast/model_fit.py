"""Check that loading a job's models would not fail because of their weights, without reading them.

Takes seconds the first time for a model.
"""

from __future__ import annotations

from framefleet.api.models import ModelSettings, source_of, weights_of
from framefleet.jobs.job.model import OpenedModel
from framefleet.pipeline.model.ip_adapter import check_places, fetch_ip_adapter, image_encoder_of
from framefleet.pipeline.model.sources.folder_source import FolderSource
from framefleet.pipeline.model.sources.weights import Weights
from framefleet.pipeline.recipes.second_model import SecondModel
from framefleet.plugins.forecast.weights_fit import check_weights_fit


def check_model_fits(model: OpenedModel) -> None:
    """Raise ModelError if loading a model or its IP-adapter would fail because of its weights."""
    settings, weights = model.settings, model.weights
    _check(weights, settings)
    if files := fetch_ip_adapter(settings.ip_adapter, settings.storage_options):
        from framefleet.pipeline.model.sources.network_loading import blank_pipeline  # imports torch

        adapter, allow_unmatched = files.adapter, settings.options.allow_unmatched_weights
        source, encoder = FolderSource(str(files.folder)), image_encoder_of(adapter)
        check_weights_fit(source, adapter.files[1:], [encoder], allow_unmatched=allow_unmatched)
        configs = weights.configs(is_built=True)
        blank = blank_pipeline(configs, weights.config_files, weights.components, model.spec)
        check_places(blank, files.folder / adapter.weights, allowed=allow_unmatched)


def check_second_model_fits(model: SecondModel) -> None:
    """Raise ModelError as `check_model_fits` does."""
    _check(weights_of(model.settings, source_of(model.settings)), model.settings)


def _check(weights: Weights, settings: ModelSettings) -> None:
    allow_unmatched = settings.options.allow_unmatched_weights
    files, components, parts = weights.files, weights.components, weights.parts
    check_weights_fit(weights.source, files, components, parts=parts, allow_unmatched=allow_unmatched)
