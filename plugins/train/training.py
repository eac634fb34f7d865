"""What a process needs to know to train: a job that was resolved and checked, as values that travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.plugins.train.dataset.rows import TrainingRows
from framefleet.plugins.train.job import TrainSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One output's training."""

    model: ModelSettings
    files: Mapping[str, str]  # of the model, each with its SHA-256
    digest: str  # of all these files
    rows: TrainingRows
    settings: TrainSettings
    store: Store
    prepared: Store  # where latents and embeddings are kept
    inputs: Inputs  # opens the rows' videos
    samples: Sequence[Request] = ()  # what is rendered now and then
