"""What a job or a program says about its model, and the loaded model. Imports no torch until then."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from framefleet.pipeline.model.device_placement import Placement, Placer
from framefleet.pipeline.model.ip_adapter import IpAdapter
from framefleet.pipeline.model.lora import Lora
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.sources.folder_source import Source
from framefleet.pipeline.model.sources.parts import ModelPart, names_of, open_parts
from framefleet.pipeline.model.sources.source import open_source, public_name
from framefleet.pipeline.model.sources.weights import Weights, open_weights
from framefleet.pipeline.model.specs.dtypes import DType, canonical_dtype
from framefleet.pipeline.model.specs.model_index import is_denoiser
from framefleet.pipeline.model.specs.spec import PipelineSpec

if TYPE_CHECKING:
    from torch import nn

    from framefleet.pipeline.engine import Engine
    from framefleet.pipeline.model.options.attention import Attention
    from framefleet.pipeline.outputs.stores.store import Store

TEXT_ENCODERS = ("text_encoder", "prior_text_encoder")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What a job says about its model."""

    path: str  # a diffusers pipeline folder, a hub model, or a URL of a folder; see `open_source`
    revision: str | None = None  # of a hub model
    lock: str | None = None  # a lock file, if not the model's own
    allow_pickle: bool = False
    parts: Mapping[str, ModelPart] = field(default_factory=dict)  # files in place of components' weights
    license: str | None = None  # what records call it; None: as its card or its preset has it
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # to open a URL
    dtype: DType = "auto"  # of all components, or of each; see `dtypes`
    device: str = "auto"  # auto is the GPU if there is one
    threads: int = 1  # of torch, on the CPU
    placement: Placement | None = None  # of several devices; None: one
    # That rows may name; which ones a row uses is among its arguments.
    loras: Mapping[str, Lora] = field(default_factory=dict)
    ip_adapter: IpAdapter | None = None  # whose image every row gives
    options: Options = field(default_factory=Options)
    engine: Engine | None = None  # what renders in its place

    @property
    def name(self) -> str:
        """What records and messages call the model; it opens it again."""
        if self.engine:
            return self.engine.name
        return public_name(self.path, self.revision) + names_of(self.parts)

    def numerics(self, mode: str) -> dict[str, Any]:
        """What of it decides the frames: part of every row's identity."""
        if self.engine:
            return {"engine": self.engine.type}
        scale = {"ip_adapter_scale": self.ip_adapter.scale} if self.ip_adapter else {}
        fixed = {"dtype": canonical_dtype(self.dtype), "threads": self.threads, "batching": mode}
        return {**fixed, "generator": "cpu", **scale, **self.options.numerics()}


class ModelUpdate(Protocol):
    """Other weights for a loaded model. A plugin's, pickled for workers; equal ones are applied once."""

    @property
    def components(self) -> Collection[str]:
        """The networks that it changes."""

    def apply(self, model: Model, store: Store) -> Model:
        """Return the model with these weights, `update` and the digest that counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A loaded pipeline, and what identifies it."""

    settings: ModelSettings
    pipe: Any
    spec: PipelineSpec
    digests: Mapping[str, str]  # of each file that was loaded
    digest: str  # of all these files; counts `update` too
    environment: Mapping[str, Any]
    attention: Attention | None = None  # if a job asks for a backend
    placer: Placer | None = None  # what has put it on several devices
    update: ModelUpdate | None = None  # of weights that it no longer has from its files

    def __repr__(self) -> str:
        settings = self.settings
        return f"Model({settings.path!r}, {self.spec.class_name}, device={self.environment['device']!r})"

    def denoisers(self) -> dict[str, nn.Module]:
        return {name: network for name, network in self.networks().items() if is_denoiser(name)}

    def text_encoders(self) -> dict[str, nn.Module]:
        return self.networks(TEXT_ENCODERS)

    def networks(self, prefixes: tuple[str, ...] = ("",)) -> dict[str, nn.Module]:
        """Return those whose names begin with one of these."""
        from framefleet.pipeline.model.options.offload import modules_of

        return modules_of(self.pipe, prefixes)


def source_of(settings: ModelSettings) -> Source:
    options = settings.storage_options
    return open_source(settings.path, revision=settings.revision, storage_options=options)


def weights_of(settings: ModelSettings, source: Source) -> Weights:
    parts = open_parts(settings.parts, settings.storage_options)
    return open_weights(source, lock=settings.lock, allow_pickle=settings.allow_pickle, parts=parts)
