"""From a diffusers pipeline folder to a model that is ready to render."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from framefleet.pipeline.errors import ModelError, message_of
from framefleet.pipeline.model import ip_adapter
from framefleet.pipeline.model.device_placement import placer_of
from framefleet.pipeline.model.environment import environment
from framefleet.pipeline.model.guardrail import load_guardrail
from framefleet.pipeline.model.license import license_of
from framefleet.pipeline.model.lora import fetch_lora
from framefleet.pipeline.model.model import Model, ModelSettings, source_of, weights_of
from framefleet.pipeline.model.numerics import numerics_of
from framefleet.pipeline.model.options import tuning
from framefleet.pipeline.model.place_trial import prove_place
from framefleet.pipeline.model.sources.components import components_in
from framefleet.pipeline.model.sources.config_checks import check_sizes
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.model.sources.network_loading import assembled, check_loaded, load_networks
from framefleet.pipeline.model.sources.parts import (
    by_component,
    open_parts,
    packed_by,
    part_sizes,
    without_parts,
)
from framefleet.pipeline.model.sources.single_file import SingleFile
from framefleet.pipeline.model.sources.verified_folder import sealed
from framefleet.pipeline.model.sources.weights import fetched_files
from framefleet.pipeline.model.specs.dtypes import ResolvedDType, check_dtype, resolved, torch_dtype
from framefleet.pipeline.model.specs.spec import inspect_model


def load(settings: ModelSettings, expected: Mapping[str, str] | None = None) -> Model:
    """Load a model. expected: the SHA-256 of every file from the driver."""
    device = _device(settings.device)
    numerics = numerics_of(settings.options, threads=settings.threads, device=device)
    numerics.apply()
    source = source_of(settings)
    parts = open_parts(settings.parts, settings.storage_options)
    if expected:
        own = {file: d for file, d in expected.items() if not file.startswith(ip_adapter.MODEL_PREFIX)}
        own = without_parts(own, parts)
        folder, digests = fetched_files(source, own, own, named_by="the driver's")
        digests |= {part.key: part.checked(expected.get(part.key)) for part in parts}
    else:
        folder, digests = weights_of(settings, source).fetched()
    spec = inspect_model(folder)
    settings = replace(settings, license=license_of(source, spec.preset, settings.license).name)
    check_dtype(settings.dtype, spec.components)
    options, components = settings.options, components_in(folder)
    sizes = {file: (folder / file).stat().st_size for file in without_parts(digests, parts)}
    sizes |= part_sizes(parts, components)
    check_sizes(folder, components, sizes, where=str(folder), is_built=True)
    adapter = ip_adapter.fetch_ip_adapter(settings.ip_adapter, settings.storage_options, expected)
    if adapter:
        spec = ip_adapter.with_ip_adapter(spec, options)
    tuning.check_options(settings, spec, folder=folder, components=components, parts=parts, device=device)
    packed = packed_by(folder, components, parts)
    placer = placer_of(settings.placement, device) if settings.placement else None
    if placer:
        placer.check(settings, spec, packed)
        if device != "cpu":
            placer.check_gpus(torch.cuda.device_count())
    dtype = resolved(settings.dtype, device=device, auto=spec.auto_dtypes)
    # A GPU that this process already uses needs no trial, and a torch without GPU support has none.
    is_new = bool(torch.version.cuda or torch.version.hip) and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if is_new or not device.startswith("cuda"):
        prove_place(device, {dtype} if isinstance(dtype, str) else {*dtype.values()})
    loras = {n: fetch_lora(n, lora, settings.storage_options) for n, lora in settings.loras.items()}
    guardrail = load_guardrail(spec)  # from the hub
    with sealed(folder, without_parts(digests, parts)) as place:
        components, allow = components_in(place), options.allow_unmatched_weights
        libraries = {component.name: component.library for component in components}
        quantized = tuning.quantization_config(options, libraries)
        files = {part: SingleFile(part.fetched(), part.is_gguf, part.where) for part in parts}
        networks, loaded = load_networks(
            place,
            [component for component in components if component.has_weights],
            dtype=for_diffusers(dtype),
            use_safetensors=None if settings.allow_pickle else True,
            quantization=quantized.make() if quantized else None,
            parts={name: files[part] for name, part in by_component(parts, components).items()},
            allow_unmatched=allow,
            where=folder,
        )
        pipe = assembled(place, spec, components, networks=networks, guardrail=guardrail)
        check_loaded(loaded, allow_unmatched=allow)
    if adapter:
        ip_adapter.load_ip_adapter(pipe, adapter, allow_unmatched=allow)
    if loras:
        from framefleet.pipeline.model import lora_loading  # imports peft and diffusers' loaders: 3 s

        lora_loading.load_loras(pipe, loras, allow_unmatched=allow)
    digests |= adapter.digests if adapter else {}
    attention = tuning.tune(pipe, options, device=device, placer=placer)
    pipe.set_progress_bar_config(disable=True)
    packages = tuning.packages_of(options, device, packed.values())
    packages += guardrail.packages if guardrail else []
    facts = environment(device, dtype, numerics, packages=packages)
    return Model(
        settings=replace(
            settings,
            path=source.path,
            revision=source.revision,
            parts={part.name: part.part for part in parts},
            loras={name: file.lora for name, file in loras.items()},
            ip_adapter=adapter.adapter if adapter else None,
        ),
        pipe=pipe,
        spec=spec,
        digests=digests,
        digest=model_digest(digests),
        environment=facts | placer.environment if placer else facts,
        attention=attention,
        placer=placer,
    )


def for_diffusers(dtype: ResolvedDType) -> torch.dtype | dict[str, torch.dtype]:
    """Return the dtype for `from_pretrained(dtype=...)`."""
    if isinstance(dtype, str):
        return torch_dtype(dtype)
    return {component: torch_dtype(name) for component, name in dtype.items()}


def _device(name: str) -> str:
    """Return the device. Raises ModelError if it is not available; does not start CUDA if it is."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type != "cuda" or (device.index or 0) >= torch.cuda.device_count():
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError if torch was built without CUDA
        reason = message_of(error).partition("\n")[0]  # torch adds its own call stack
        raise ModelError(f"device {name!r} cannot be used: {reason}", "use cpu, or auto") from error
    return name
