"""A model that is ready to render, and the files that it comes of. Imports no torch until one is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framefleet.pipeline.model.settings import ModelSettings
from framefleet.pipeline.model.sources.folder_source import Source
from framefleet.pipeline.model.sources.source import open_source
from framefleet.pipeline.model.sources.weights import Weights, open_weights
from framefleet.pipeline.model.specs.model_index import DENOISERS
from framefleet.pipeline.model.specs.spec import PipelineSpec

if TYPE_CHECKING:
    from torch import nn

    from framefleet.pipeline.model.options.attention import Attention

TEXT_ENCODERS = ("text_encoder",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A loaded pipeline, and what identifies it.

    digest: of all files loaded; digests: of each. environment: see `environment`. attention: where a job
    asks for a backend.
    """

    settings: ModelSettings
    pipe: Any
    spec: PipelineSpec
    digests: Mapping[str, str]
    digest: str
    environment: Mapping[str, Any]
    attention: Attention | None = None

    def __repr__(self) -> str:
        settings = self.settings
        return f"Model({settings.path!r}, {self.spec.class_name}, device={settings.device!r})"

    def denoisers(self) -> dict[str, nn.Module]:
        return self.networks(DENOISERS)

    def text_encoders(self) -> dict[str, nn.Module]:
        return self.networks(TEXT_ENCODERS)

    def networks(self, prefixes: tuple[str, ...] = ("",)) -> dict[str, nn.Module]:
        """Return those whose names begin with one of these."""
        from framefleet.pipeline.model.options.offload import modules_of

        return modules_of(self.pipe, prefixes)


def source_of(settings: ModelSettings) -> Source:
    """Return where the model comes from."""
    options = settings.storage_options
    return open_source(settings.path, revision=settings.revision, storage_options=options)


def weights_of(settings: ModelSettings, source: Source) -> Weights:
    """Return the files that loading the model would read."""
    return open_weights(source, lock=settings.lock, allow_pickle=settings.allow_pickle)


def model_files(folder: Path) -> dict[str, str]:
    """Return every file that loading `folder` reads, with its SHA-256; loads no weights."""
    return open_weights(open_source(str(folder))).digests()
