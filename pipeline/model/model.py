"""The settings of a model in a job or a program, and the loaded model. Does not import torch."""

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
    license: str | None = None  # for records; None: from its card or its preset
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # to open a URL
    dtype: DType = "auto"  # one for all components, or one for each; see `dtypes`
    device: str = "auto"  # auto is the GPU if there is one
    threads: int = 1  # of torch, on the CPU
    placement: Placement | None = None  # on several devices; None: on one
    # Those that rows may name; the ones that a row uses are among its arguments.
    loras: Mapping[str, Lora] = field(default_factory=dict)
    ip_adapter: IpAdapter | None = None  # every row needs an image for it
    options: Options = field(default_factory=Options)
    engine: Engine | None = None  # renders in place of a model

    @property
    def name(self) -> str:
        """The model's name in records and messages; the model can be opened by it again."""
        if self.engine:
            return self.engine.name
        return public_name(self.path, self.revision) + names_of(self.parts)

    def numerics(self, mode: str) -> dict[str, Any]:
        """The settings that decide frames: part of every row's identity."""
        if self.engine:
            return {"engine": self.engine.type}
        scale = {"ip_adapter_scale": self.ip_adapter.scale} if self.ip_adapter else {}
        fixed = {"dtype": canonical_dtype(self.dtype), "threads": self.threads, "batching": mode}
        return {**fixed, "generator": "cpu", **scale, **self.options.numerics()}


class ModelUpdate(Protocol):
    """Other weights for a loaded model, from a plugin. Pickled for workers; equal ones are applied once."""

    @property
    def components(self) -> Collection[str]:
        """The networks that it changes."""

    def apply(self, model: Model, store: Store) -> Model:
        """Return the model with these weights, this as its `update`, and a digest that includes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A loaded pipeline, and what identifies it."""

    settings: ModelSettings
    pipe: Any
    spec: PipelineSpec
    digests: Mapping[str, str]  # of each file that was loaded
    digest: str  # of all these files, and of `update`
    environment: Mapping[str, Any]
    attention: Attention | None = None  # if the job sets a backend
    placer: Placer | None = None  # if it is on several devices
    update: ModelUpdate | None = None  # of weights that do not come from its files any more

    def __repr__(self) -> str:
        settings = self.settings
        return f"Model({settings.path!r}, {self.spec.class_name}, device={self.environment['device']!r})"

    def denoisers(self) -> dict[str, nn.Module]:
        return {name: network for name, network in self.networks().items() if is_denoiser(name)}

    def text_encoders(self) -> dict[str, nn.Module]:
        return self.networks(TEXT_ENCODERS)

    def networks(self, prefixes: tuple[str, ...] = ("",)) -> dict[str, nn.Module]:
        """Return the networks whose names begin with any of these."""
        from framefleet.pipeline.model.options.offload import modules_of

        return modules_of(self.pipe, prefixes)


def source_of(settings: ModelSettings) -> Source:
    options = settings.storage_options
    return open_source(settings.path, revision=settings.revision, storage_options=options)


def weights_of(settings: ModelSettings, source: Source) -> Weights:
    parts = open_parts(settings.parts, settings.storage_options)
    return open_weights(source, lock=settings.lock, allow_pickle=settings.allow_pickle, parts=parts)
