"""Apply a model's options to its pipeline: the calls of diffusers, and their order.

Weights first (quantised while they are read, then cast), then their place, then kernels, then the compiler,
which needs all of that in place. For `quantization`: the argument of `from_pretrained`, and whether it had an
effect.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.model.device_placement import Placer
from framefleet.pipeline.model.options import attention, offload, schema, step_cache
from framefleet.pipeline.model.options.attention import Attention
from framefleet.pipeline.model.options.pipe_calls import New, PipeCall
from framefleet.pipeline.model.options.regions import allow_graphs, check_compiler
from framefleet.pipeline.model.options.torchao_import import say_import_warnings
from framefleet.pipeline.model.registry import class_of
from framefleet.pipeline.model.sources import packing
from framefleet.pipeline.model.sources.components import Component
from framefleet.pipeline.model.sources.parts import PartFile, by_component, packed_by
from framefleet.pipeline.model.sources.verified_folder import sealed
from framefleet.pipeline.model.specs.model_index import is_denoiser
from framefleet.pipeline.model.specs.spec import PipelineSpec

if TYPE_CHECKING:
    from framefleet.pipeline.model.model import ModelSettings

# torchao's classes for our types, whose names are shorter, for job files.
_TORCHAO, _PROTOTYPES = "torchao.quantization", "torchao.prototype.mx_formats"
TORCHAO = {
    "int8_weight_only": (_TORCHAO, "Int8WeightOnlyConfig"),
    "int8_dynamic": (_TORCHAO, "Int8DynamicActivationInt8WeightConfig"),
    "int4_weight_only": (_TORCHAO, "Int4WeightOnlyConfig"),
    "float8_weight_only": (_TORCHAO, "Float8WeightOnlyConfig"),
    "float8_dynamic": (_TORCHAO, "Float8DynamicActivationFloat8WeightConfig"),
    "mxfp8_dynamic": (_PROTOTYPES, "MXDynamicActivationMXWeightConfig"),
    "nvfp4_weight_only": (_PROTOTYPES, "NVFP4WeightOnlyConfig"),
    "nvfp4_dynamic": (_PROTOTYPES, "NVFP4DynamicActivationNVFP4WeightConfig"),
}
# The first GPUs that can multiply in a type: Ampere (int4), Ada (fp8), Blackwell (mxfp8, nvfp4).
_CAPABILITIES = {
    "int4_weight_only": (8, 0),
    "float8_dynamic": (8, 9),
    "mxfp8_dynamic": (10, 0),
    "nvfp4_weight_only": (10, 0),
    "nvfp4_dynamic": (10, 0),
}
# Only for files that are already packed; nothing can be packed in these formats here.
_ONLY_PACKED = ("gguf", "bfl", "auto-round")


def check_quantization(quantization: schema.Quantization, *, device: str | None) -> None:
    """Raise ModelError if its package is missing, or the device, if known, cannot do it."""
    backend = quantization.backend
    if isinstance(quantization, schema.OtherQuantization):
        _check_arguments(quantization)
        if backend in packing.ON_GPUS and device == "cpu":
            raise ModelError(f"quantization by {backend} needs a GPU", "use torchao, quanto or sdnq")
        return
    needed = _CAPABILITIES.get(quantization.type)
    is_gpu = device is not None and device.startswith("cuda")
    if needed and device is not None and not (is_gpu and torch.cuda.get_device_capability(device) >= needed):
        name = torch.cuda.get_device_name(device) if is_gpu else device
        raise ModelError(
            f"quantization {quantization.type} does not run on {name}: it needs a GPU with compute "
            f"capability {needed[0]}.{needed[1]} or later",
            "use float8_weight_only, or leave it out; instead of `speed: fastest` use `speed: compiled`",
        )
    packing.check_package(backend, f"quantization by {backend}")
    if isinstance(quantization, schema.TorchAo):
        say_import_warnings()


def _check_arguments(quantization: schema.OtherQuantization) -> None:
    """Raise ModelError for a backend that diffusers does not have, or arguments that it does not take."""
    backend = quantization.backend
    if backend in _ONLY_PACKED:
        fix = "use a model folder that is packed by it"
        if backend == "gguf":
            fix = "name the file: `model.parts: {transformer: FILE.gguf}`"
        raise ModelError(f"quantization: {backend} is a file format, and cannot pack weights here", fix)
    classes = packing.config_classes()
    if backend not in classes:
        fix = did_you_mean(backend, classes.keys() - {*_ONLY_PACKED})
        raise ModelError(f"quantization.backend is {backend!r}, which diffusers does not have", fix)
    packing.check_package(backend, f"quantization by {backend}")
    name = classes[backend].__name__
    try:
        config = classes[backend](**quantization.arguments)
    except (TypeError, ValueError, AttributeError, ImportError) as error:
        problem = f"quantization: {name} of diffusers does not take these values: {error}"
        raise ModelError(problem, "see its page in the documentation of diffusers") from None
    # Of the object, because a class of diffusers may return another package's. Most ignore unknown arguments.
    parameters = [*inspect.signature(type(config).__init__).parameters][1:]
    if unknown := [argument for argument in quantization.arguments if argument not in parameters]:
        problem = f"quantization: {name} of diffusers takes no {unknown[0]!r}"
        raise ModelError(problem, did_you_mean(unknown[0], parameters))


def check_quantized(components: Mapping[str, Any], quantization: schema.Quantization) -> None:
    """Raise ModelError for a component that was not quantized at all: the libraries skip layers silently."""
    for name, module in components.items():
        if not any(map(_is_quantized, module.modules())):
            problem = f"quantization: {quantization.backend} found nothing in {name} that it could quantize"
            raise ModelError(problem, "leave it out of quantization.components, or use another type")


def component_config(quantization: schema.Quantization, library: str) -> New:
    """Return the config for one component. library: of its class; each library has its own config class."""
    # Our own classes, and modules of diffusers, are loaded like those of diffusers.
    library = library if library == "transformers" else "diffusers"
    if isinstance(quantization, schema.OtherQuantization):
        name = packing.config_classes(library)[quantization.backend].__name__
        module = library if hasattr(import_module(library), name) else quantization.backend
        return New(module=module, name=name, arguments=quantization.arguments)
    if isinstance(quantization, schema.TorchAo):
        module, name = TORCHAO[quantization.type]
        kind = New(module=module, name=name)
        return New(module=library, name="TorchAoConfig", arguments={"quant_type": kind})
    key = "weights_dtype" if library == "diffusers" else "weights"
    return New(module=library, name="QuantoConfig", arguments={key: quantization.type})


def _is_quantized(module: nn.Module) -> bool:
    # torchao and quanto store packed weights in a subclass of Tensor, others in whole numbers.
    weight = getattr(module, "weight", None)
    return weight is not None and (
        hasattr(weight, "__tensor_flatten__")
        or weight.dtype.itemsize == 1
        or "Quant" in type(module).__name__
    )


FP8 = {"fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
TRITON = "framefleet.pipeline.model.triton_linear"
NEVER = False  # for `dynamic`: bits must not depend on earlier shapes

# Else Inductor measures some kernels and takes the fastest, so two machines could sum in different orders.
DETERMINISTIC = {"deterministic": True}


def denoisers_in(components: Iterable[str]) -> list[str]:
    return [name for name in components if is_denoiser(name)]


def quantization_config(options: schema.Options, libraries: Mapping[str, str]) -> New | None:
    """Return the config for from_pretrained. libraries: of each component's class."""
    if options.quantization is None:
        return None
    mapping = {
        name: component_config(options.quantization, libraries[name])
        for name in options.quantization.components or denoisers_in(libraries)
    }
    return New(module="diffusers", name="PipelineQuantizationConfig", arguments={"quant_mapping": mapping})


def tune(
    pipe: Any, options: schema.Options, *, device: str, placer: Placer | None = None
) -> Attention | None:
    """Set up a loaded pipeline on the device, except for the step cache. Raises ModelError."""
    modules = offload.modules_of(pipe)
    denoisers = {name: modules[name] for name in denoisers_in(modules)}
    if options.quantization:
        names = options.quantization.components or denoisers
        check_quantized({name: modules[name] for name in names}, options.quantization)
    for call in weight_calls(options, modules):
        call.make(pipe)
    if options.offload:
        offload.offload(pipe, options.offload, device=device, denoisers=denoisers)
    elif placer:
        placer.place(pipe)
    else:
        pipe.to(device)
    backend = None
    if options.attention:
        backend = attention.open_attention(options.attention, denoisers, device=device)
    if options.compile:
        check_compiler(device)
        allow_graphs()
    for call in compile_calls(options, denoisers):
        call.make(pipe)
    return backend


def packages_of(options: schema.Options, device: str, methods: Collection[str] = ()) -> list[str]:
    """Return the packages whose versions decide bits. methods: those that packed the model's weights."""
    methods = {*methods, *([options.quantization.backend] if options.quantization else [])}
    packages = sorted(
        packing.METHOD_PACKAGES[method] for method in methods if method in packing.METHOD_PACKAGES
    )
    has_kernels = options.compile or options.matmul == "triton"
    packages += ["cache-dit"] * isinstance(options.cache, schema.CacheDit)
    return packages + ["triton"] * (has_kernels and device.startswith("cuda"))


def weight_calls(options: schema.Options, components: Collection[str]) -> list[PipeCall]:
    calls, denoisers = [], denoisers_in(components)
    if options.fuse_qkv:  # first, with unchanged weights
        calls += [_of(name, "fuse_qkv_projections") for name in denoisers]
    if options.layerwise_casting:
        dtype = FP8[options.layerwise_casting]
        calls += [_of(name, "enable_layerwise_casting", storage_dtype=dtype) for name in denoisers]
    if options.channels_last:
        networks = [name for name in (*denoisers, "vae") if name in components]
        calls += [_of(name, "to", memory_format=torch.channels_last) for name in networks]
    if options.matmul == "triton":
        calls += [PipeCall(component=name, module=TRITON, method="use_triton") for name in denoisers]
    calls += [_of("vae", "enable_tiling")] * options.vae_tiling
    calls += [_of("vae", "enable_slicing")] * options.vae_slicing
    return calls


def compile_calls(options: schema.Options, denoisers: Iterable[str]) -> list[PipeCall]:
    settings = {"fullgraph": True, "dynamic": NEVER, "options": DETERMINISTIC}
    return [_of(name, "compile_repeated_blocks", **settings) for name in denoisers] * options.compile


def _of(component: str, method: str, **arguments: Any) -> PipeCall:
    return PipeCall(component=component, method=method, arguments=arguments)


_HOOKS = "torch cannot compile blocks with hooks of diffusers"
# Pairs that were tried and fail with diffusers 0.42 and torch 2.13.
_APART = (
    ("compile", "cache", _HOOKS),
    ("compile", "layerwise_casting", _HOOKS),
    ("compile", "offload group", _HOOKS),
    ("quantization", "layerwise_casting", "quantised weights have their own type"),
    ("quantization", "offload.disk", "quantised weights are not written to files"),
    ("matmul triton", "compile", "a compiled block has its own products"),
    ("matmul triton", "quantization", "its kernel takes plain weights"),
    ("matmul triton", "layerwise_casting", "its kernel needs weights with the dtype of their inputs"),
    ("fuse_qkv", "quantization", "diffusers only joins plain weights"),
    ("fuse_qkv", "LoRAs", "they change the weights that it has joined"),
    ("quantization by quanto", "offload group", "diffusers cannot move quanto's weights in groups"),
)
# The same for weights that are already packed, with the methods for which an option fails.
_NOT_PACKED = (
    ("fuse_qkv", ("gguf", "torchao"), "diffusers only joins plain weights"),
    ("layerwise_casting", ("quanto",), "they have their own type"),
    ("offload.disk", ("torchao", "quanto"), "they are not written to files"),
    ("matmul triton", ("torchao",), "its kernel takes plain weights"),
    ("offload group", ("quanto",), "diffusers cannot move quanto's weights in groups"),
)


def check_options(
    settings: ModelSettings,
    spec: PipelineSpec,
    *,
    folder: Path,
    components: Sequence[Component],
    parts: Collection[PartFile],
    device: str | None = None,
) -> None:
    """Raise ModelError for an option that this model or device does not support, before weights are read.

    The denoisers and the autoencoder are built from their configs, without memory for weights, because some
    facts are set in constructors. folder: has the configs. device: None if it is not known yet.
    """
    options = settings.options
    if options == schema.Options():
        return
    packed = packed_by(folder, components, parts)
    group = options.offload if isinstance(options.offload, schema.GroupOffload) else None
    used = {
        "compile": options.compile,
        "fuse_qkv": options.fuse_qkv,
        "cache": options.cache,
        "layerwise_casting": options.layerwise_casting,
        "quantization": options.quantization,
        "matmul triton": options.matmul == "triton",
        "quantization by quanto": isinstance(options.quantization, schema.Quanto),
        "offload group": group,
        "offload.disk": group and group.disk,
        "LoRAs": settings.loras,
    }
    for option, other, reason in _APART:
        if used[option] and used[other]:
            problem = f"{option} does not work together with {other}: {reason}"
            raise ModelError(problem, "leave one of them out")
    for option, methods, reason in _NOT_PACKED:
        # Offload in groups concerns all networks, other options only the denoisers.
        names = packed if option == "offload group" else denoisers_in(packed)
        for name in names:
            if used[option] and packed[name] in methods:
                problem = f"{option}: the weights of {name} are packed by {packed[name]}: {reason}"
                raise ModelError(problem, "leave it out, or use the model's plain weights")
    by_name = {component.name: component for component in components}
    denoisers = blank_denoisers(components, folder)
    needs_vae = options.channels_last or options.vae_tiling or options.vae_slicing
    vae = _without_weights(by_name["vae"], folder) if needs_vae and "vae" in by_name else None
    if options.attention:
        attention.check_attention(options.attention, denoisers)
        if device == "cpu" and options.attention != attention.AUTO:
            attention.check_works(options.attention, device=device, dtype=torch.float32)
    if options.cache:
        step_cache.check_cache(options.cache, denoisers, pipeline_class=spec.pipeline_class)
    for module in denoisers.values():
        name = type(module).__name__
        if options.compile and not getattr(module, "_repeated_blocks", None):
            fix = "leave it out, or set `compile: false` together with `speed`"
            raise ModelError(f"compile: diffusers defines no regions of {name} to compile", fix)
        if options.fuse_qkv and not hasattr(module, "fuse_qkv_projections"):
            raise ModelError(f"fuse_qkv: {name} cannot join query, key and value", "leave it out")
    if options.matmul == "triton" and device is not None:
        if not device.startswith("cuda"):
            raise ModelError(f"matmul 'triton' needs a GPU, but the device is {device}", "leave it out")
        if find_spec("triton") is None:
            raise ModelError("matmul 'triton' needs Triton", "pip install triton, or use no_split_k")
    if options.channels_last:  # torch converts all convolutions or none
        ranks = {}
        for module in (*denoisers.values(), *([vae] if vae else [])):
            ranks[type(module).__name__] = {weight.dim() for weight in module.parameters()}
        if over_time := [name for name, dims in ranks.items() if 5 in dims]:
            raise ModelError(f"channels_last: {over_time[0]} convolves over time", "leave it out")
        if not any(4 in dims for dims in ranks.values()):
            raise ModelError("channels_last: the model has no convolutions", "leave it out")
    if options.quantization:
        check_quantization(options.quantization, device=device)
        usable = [name for name, component in by_name.items() if component.has_weights]
        replaced = by_component(parts, components)
        for name in options.quantization.components or denoisers:
            if name not in usable:
                problem = f"quantization.components names {name!r}, which has no weights in this model"
                raise ModelError(problem, f"use some of {', '.join(usable)}")
            if method := packed.get(name):
                fix = "leave it out (`speed: compiled` has none), or use the model's plain weights"
                raise ModelError(f"quantization: the weights of {name} are already packed by {method}", fix)
            if name in replaced and by_name[name].loader != "diffusers":
                problem = f"{name}: text encoders from a single file cannot be quantised"
                raise ModelError(problem, "leave it out of `model.quantization.components`")
    if options.offload:
        offload.check_offload(options.offload, denoisers, device=device)
    for is_set, name in ((options.vae_tiling, "tiling"), (options.vae_slicing, "slicing")):
        if is_set and vae is None:
            raise ModelError(f"vae_{name}: the model has no autoencoder `vae`", "leave it out")
        if is_set and not hasattr(vae, f"use_{name}"):
            raise ModelError(f"vae_{name}: {type(vae).__name__} has no {name}", "leave it out")


def blank_denoisers(components: Sequence[Component], folder: Path) -> dict[str, Any]:
    """Return the denoisers, built from their configs without memory for weights."""
    by_name = {component.name: component for component in components}
    return {name: _without_weights(by_name[name], folder) for name in denoisers_in(by_name)}


def _without_weights(component: Component, folder: Path) -> Any:
    made = class_of(component.library, component.class_name)
    with sealed(folder, [f"{component.name}/config.json"]) as place, torch.device("meta"):
        return made.from_config(made.load_config(place, subfolder=component.name))
