"""From a diffusers pipeline folder to a model that is ready to render."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.environment import environment
from framefleet.pipeline.model.loras.files import fetch_lora
from framefleet.pipeline.model.model import Model, source_of, weights_of
from framefleet.pipeline.model.numerics import numerics_of
from framefleet.pipeline.model.options.checks import check_options
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.options.tuning import packages_of, quantization_config, tune
from framefleet.pipeline.model.settings import ModelSettings
from framefleet.pipeline.model.sources.assembled import assembled
from framefleet.pipeline.model.sources.components import components_in
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.model.sources.sealed import sealed
from framefleet.pipeline.model.sources.weights import fetched_as
from framefleet.pipeline.model.specs.dtypes import ResolvedDType, check_dtype, resolved, torch_dtype
from framefleet.pipeline.model.specs.spec import inspect_model


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
