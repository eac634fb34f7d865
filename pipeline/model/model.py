"""From a diffusers pipeline folder to a model that is ready to render."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.environment import environment
from framefleet.pipeline.model.loras.asked import Lora, loras_of
from framefleet.pipeline.model.loras.files import fetch_lora
from framefleet.pipeline.model.numerics import numerics_of
from framefleet.pipeline.model.options.attention import Attention
from framefleet.pipeline.model.options.checks import check_options
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.options.schema import read_options
from framefleet.pipeline.model.options.tuning import packages_of, quantization_config, tune
from framefleet.pipeline.model.settings import ModelSettings
from framefleet.pipeline.model.sources.assembled import assembled
from framefleet.pipeline.model.sources.components import components_in
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.model.sources.sealed import sealed
from framefleet.pipeline.model.sources.source import Source, open_source
from framefleet.pipeline.model.sources.weights import Weights, fetched_as, open_weights
from framefleet.pipeline.model.specs.dtypes import DType, ResolvedDType, check_dtype, resolved, torch_dtype
from framefleet.pipeline.model.specs.model_index import DENOISERS
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model

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

    def denoisers(self) -> dict[str, nn.Module]:
        return modules_of(self.pipe, DENOISERS)

    def text_encoders(self) -> dict[str, nn.Module]:
        return modules_of(self.pipe, TEXT_ENCODERS)

    def networks(self) -> dict[str, nn.Module]:
        return modules_of(self.pipe)


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
    **options: Any,
) -> Model:
    """Load a diffusers pipeline for rendering.

    path: a folder, `org/name` of the hub, or a URL that fsspec opens. revision: of the hub, a branch, tag or
    commit. lock: the lock file that the files must agree with, if not the model's own. allow_pickle: load
    pickles of tensors where there are no safetensors. dtype: auto, fp32, fp16, bf16, or of each component, as
    {"default": "bf16", "vae": "fp32"}. loras: by the name that requests give them, each a path or a mapping
    with the fields of `Lora`. options: as below `model:` in a job, `offload="group"`; see `Options`.
    Sets torch's numerics for the whole process (see `Numerics`), on a GPU before anything else uses it.
    Raises ModelError when the model is incomplete, corrupted, not the locked one, or holds pickles only.
    """
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
        options=read_options(options),
    )
    return load(settings)


def load(settings: ModelSettings, expected: Mapping[str, str] | None = None) -> Model:
    """Load what `settings` say; see `load_model`.

    expected: the SHA-256 of every file, as the driver found them; without them lock and hub are asked.
    """
    device = _device(settings.device)
    numerics = numerics_of(settings.options, threads=settings.threads, device=device)
    numerics.apply()
    source = source_of(settings)
    if expected:
        folder, digests = fetched_as(source, expected)
    else:
        folder, digests = weights_of(settings, source).fetched()
    spec = inspect_model(folder)
    check_dtype(settings.dtype, spec.components)
    options, components = settings.options, components_in(folder)
    check_options(options, spec, folder=folder, components=components, device=device)
    dtype = resolved(settings.dtype, device=device, preset=spec.preset)
    loras = {n: fetch_lora(n, lora, settings.storage_options) for n, lora in settings.loras.items()}
    quantized = quantization_config(options, {component.name: component.library for component in components})
    with sealed(folder, digests) as place:
        pipe = assembled(
            place,
            spec,
            components,
            dtype=for_diffusers(dtype),
            use_safetensors=None if settings.allow_pickle else True,
            quantization=quantized.make() if quantized else None,
        )
    if quantized is None:  # what is packed is another weight, without the mark
        _check_filled(pipe, folder)
    if loras:
        from framefleet.pipeline.model.loras.loading import (
            load_loras,  # imports peft and diffusers' loaders: 3 s
        )

        load_loras(pipe, loras)
    attention = tune(pipe, options, device=device)
    pipe.set_progress_bar_config(disable=True)
    return Model(
        settings=replace(
            settings,
            path=source.path,
            revision=source.revision,
            loras={name: file.lora for name, file in loras.items()},
        ),
        pipe=pipe,
        spec=spec,
        digests=digests,
        digest=model_digest(digests),
        environment=environment(device, dtype, numerics, packages=packages_of(options, device)),
        attention=attention,
    )


def for_diffusers(dtype: ResolvedDType) -> torch.dtype | dict[str, torch.dtype]:
    """Return a dtype as `from_pretrained(dtype=...)` takes it."""
    if isinstance(dtype, str):
        return torch_dtype(dtype)
    return {component: torch_dtype(name) for component, name in dtype.items()}


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


def _check_filled(pipe: Any, folder: Path) -> None:
    """Raise ModelError for a network of which a weight is in none of its files.

    diffusers leaves it empty; transformers makes one up, another each time, and marks those that it read.
    """
    from transformers import PreTrainedModel  # imported by the pipeline that was loaded

    for component, network in modules_of(pipe).items():
        is_marked = isinstance(network, PreTrainedModel)
        for name, weight in network.named_parameters():
            if weight.is_meta or (is_marked and not getattr(weight, "_is_hf_initialized", False)):
                raise ModelError(f"{folder / component} has no weight {name}", "fetch the model again")


def _device(name: str) -> str:
    """Return the device. Raises ModelError for one that is not here; starts no CUDA that is."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type != "cuda" or (device.index or 0) >= torch.cuda.device_count():
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without CUDA
        raise ModelError(f"device {name!r} cannot be used: {error}", "use cpu, or auto") from error
    return name
