"""What a process needs to know to train: a job that was resolved and checked, as values that travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.plugins.train.dataset.rows import TrainingRows
from framefleet.plugins.train.settings import TrainSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One output's training.

    files: of the model, each with its SHA-256; digest: of them all. inputs: opens the rows' videos. samples:
    what is rendered now and then. prepared: where latents and embeddings are kept.
    """

    model: ModelSettings
    files: Mapping[str, str]
    digest: str
    rows: TrainingRows
    settings: TrainSettings
    store: Store
    prepared: Store
    inputs: Inputs
    samples: Sequence[Request] = ()
