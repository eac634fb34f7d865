"""A model that is ready to render, and the files that it comes of. Imports no torch until one is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from framefleet.pipeline.model.ip_adapter.files import IpAdapter, ip_adapter_of
from framefleet.pipeline.model.loras.asked import Lora, loras_of
from framefleet.pipeline.model.options.schema import OptionValues, read_options
from framefleet.pipeline.model.options.torchao_import import keep_import_warnings
from framefleet.pipeline.model.settings import ModelSettings
from framefleet.pipeline.model.sources.source import Source, open_source
from framefleet.pipeline.model.sources.weights import Weights, open_weights
from framefleet.pipeline.model.specs.dtypes import DType
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


def load_model(
    path: str | Path,
    *,
    revision: str | None = None,
    lock: str | Path | None = None,
    allow_pickle: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    dtype: DType = "auto",
    device: str = "auto",
    threads: int = 1,
    loras: Mapping[str, str | Path | Mapping[str, Any] | Lora] | None = None,
    ip_adapter: Mapping[str, Any] | IpAdapter | None = None,
    **options: Unpack[OptionValues],
) -> Model:
    """Load a diffusers pipeline for rendering.

    path: a folder, `org/name` of the hub, or a URL that fsspec opens. revision: of the hub, a branch, tag or
    commit. lock: the lock file that the files must agree with, if not the model's own. allow_pickle: load
    pickles of tensors where there are no safetensors. dtype: auto, fp32, fp16, bf16, or of each component, as
    {"default": "bf16", "vae": "fp32"}. loras: by the name that requests give them, each a path or a mapping
    with the fields of `Lora`. ip_adapter: a mapping with the fields of `IpAdapter`. options: as below
    `model:` in a job, `offload="group"`; see `Options`.
    Sets torch's numerics for the whole process (see `Numerics`), on a GPU before anything else uses it.
    Raises ModelError when the model is incomplete, corrupted, not the locked one, or holds pickles only.
    """
    keep_import_warnings()
    from framefleet.pipeline.model.load import load

    settings = ModelSettings(
        path=str(path),
        revision=revision,
        lock=str(lock) if lock is not None else None,
        allow_pickle=allow_pickle,
        storage_options=dict(storage_options or {}),
        dtype=dtype,
        device=device,
        threads=threads,
        loras=loras_of(loras or {}),
        ip_adapter=ip_adapter_of(ip_adapter),
        options=read_options(options),
    )
    return load(settings)


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
