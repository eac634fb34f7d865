"""From a model's options to a pipeline that computes by them: what diffusers is given, and in which order.

Weights first (quantised as they are read, then cast), then where they wait, then kernels, then the compiler,
which must find all of that in place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from framefleet.pipeline.model.device_placement import Placer
from framefleet.pipeline.model.options.attention import Attention, backend_lines, open_attention
from framefleet.pipeline.model.options.offload import OWN_FOLDER, modules_of, offload, script_calls
from framefleet.pipeline.model.options.pipe_calls import DIFFUSERS, New, PipeCall, imports
from framefleet.pipeline.model.options.quantization import check_quantized, pipeline_config
from framefleet.pipeline.model.options.regions import allow_graphs, check_compiler
from framefleet.pipeline.model.options.schema import CacheDit, Options
from framefleet.pipeline.model.options.step_cache import enabling
from framefleet.pipeline.model.sources.packing import METHODS, PackingMethod
from framefleet.pipeline.model.specs.model_index import DENOISERS

FP8 = {"fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
TRITON = "framefleet.pipeline.model.triton_linear"
NEVER = False  # of `dynamic`: bits must not depend on which shapes came before

# Else Inductor times some kernels and takes the quickest: two machines would sum in another order.
DETERMINISTIC = {"deterministic": True}


def denoisers_in(components: Iterable[str]) -> list[str]:
    return [name for name in components if name.startswith(DENOISERS)]


def quantization_config(options: Options, libraries: Mapping[str, str]) -> New | None:
    """Return what from_pretrained is given. libraries: where each component's class is from."""
    if options.quantization is None:
        return None
    names = options.quantization.components or denoisers_in(libraries)
    return pipeline_config(options.quantization, {name: libraries[name] for name in names})


def tune(pipe: Any, options: Options, *, device: str, placer: Placer | None = None) -> Attention | None:
    """Set up a loaded pipeline and put it on the device. Raises ModelError for what does not work here.

    Not the step cache: each row has its own.
    """
    modules = modules_of(pipe)
    denoisers = {name: modules[name] for name in denoisers_in(modules)}
    if options.quantization:
        names = options.quantization.components or denoisers
        check_quantized({name: modules[name] for name in names}, options.quantization)
    for call in weight_calls(options, modules):
        call.make(pipe)
    if options.offload:
        offload(pipe, options.offload, device=device, denoisers=denoisers)
    elif placer:
        placer.place(pipe)
    else:
        pipe.to(device)
    attention = open_attention(options.attention, denoisers, device=device) if options.attention else None
    if options.compile:
        check_compiler(device)
        allow_graphs()
    for call in compile_calls(options, denoisers):
        call.make(pipe)
    return attention


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a script says to the same end.

    quantization: of the weights as they are read, as code. lines: after it. modules, classes: what it
    imports, and what it imports from diffusers.
    """

    quantization: str
    lines: Sequence[str]
    modules: Collection[str]
    classes: Collection[str]


def script_setup(options: Options, libraries: Mapping[str, str], *, device: str, steps: int) -> Setup:
    """Return a script's share. libraries: of all components that hold weights. steps: the row's."""
    denoisers = denoisers_in(libraries)
    quantized = quantization_config(options, libraries)
    first = weight_calls(options, libraries)
    if options.offload:
        first += script_calls(options.offload, libraries, device=device, denoisers=denoisers)
    caches = [enabling(options.cache, name, steps=steps) for name in denoisers] if options.cache else []
    last = [*compile_calls(options, denoisers), *caches]
    placing = [] if options.offload else [f"pipe.to({device!r})"]
    attention = backend_lines(denoisers, options.attention) if options.attention else []
    lines = [*map(str, first), *placing, *attention, *map(str, last)]
    needed = set(imports([quantized, *first, *last]))
    modules = {module for module, _ in needed} - {DIFFUSERS}
    return Setup(
        quantization=str(quantized) if quantized else "",
        lines=lines,
        modules=modules | {"tempfile"} if any(OWN_FOLDER in line for line in lines) else modules,
        classes={name for _, name in needed if name} | ({"attention_backend"} if attention else set()),
    )


def packages_of(options: Options, device: str, methods: Collection[str] = ()) -> list[str]:
    """Return the packages whose versions decide bits. methods: by which the model's weights are packed."""
    methods = {*methods, *([options.quantization.backend] if options.quantization else [])}
    packages = sorted(
        package for method in methods if (package := METHODS.get(method, PackingMethod()).package)
    )
    has_kernels = options.compile or options.matmul == "triton"
    packages += ["cache-dit"] * isinstance(options.cache, CacheDit)
    return packages + ["triton"] * (has_kernels and device.startswith("cuda"))


def weight_calls(options: Options, components: Collection[str]) -> list[PipeCall]:
    """Return what changes weights, and how denoisers and the autoencoder go about their work."""
    calls, denoisers = [], denoisers_in(components)
    if options.fuse_qkv:  # of weights as they were read
        calls += [_of(name, "fuse_qkv_projections") for name in denoisers]
    if options.layerwise_casting:
        storage = {"storage_dtype": FP8[options.layerwise_casting]}
        calls += [_of(name, "enable_layerwise_casting", storage) for name in denoisers]
    if options.channels_last:
        layout = {"memory_format": torch.channels_last}
        calls += [_of(name, "to", layout) for name in (*denoisers, "vae") if name in components]
    if options.matmul == "triton":
        calls += [PipeCall(component=name, module=TRITON, method="use_triton") for name in denoisers]
    calls += [_of("vae", "enable_tiling")] * options.vae_tiling
    calls += [_of("vae", "enable_slicing")] * options.vae_slicing
    return calls


def compile_calls(options: Options, denoisers: Iterable[str]) -> list[PipeCall]:
    settings = {"fullgraph": True, "dynamic": NEVER, "options": DETERMINISTIC}
    return [_of(name, "compile_repeated_blocks", settings) for name in denoisers] * options.compile


def _of(component: str, method: str, arguments: Mapping[str, Any] | None = None) -> PipeCall:
    return PipeCall(component=component, method=method, arguments=arguments or {})
