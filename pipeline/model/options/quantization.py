"""From the job's `quantization` to what `from_pretrained` is given, and whether it then happened."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import nn

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.model.options.pipe_calls import New
from framefleet.pipeline.model.options.schema import OtherQuantization, Quantization, TorchAo
from framefleet.pipeline.model.options.torchao_import import say_import_warnings
from framefleet.pipeline.model.sources.packing import ON_GPUS, check_package, config_classes

# torchao's own names; its names say what is meant, ours fit a job file.
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
# The first GPUs that have the products of a type: Ampere (int4), Ada (fp8), Blackwell (mxfp8, nvfp4).
_CAPABILITIES = {
    **{"int4_weight_only": (8, 0), "float8_dynamic": (8, 9)},
    **{"mxfp8_dynamic": (10, 0), "nvfp4_weight_only": (10, 0), "nvfp4_dynamic": (10, 0)},
}
# Files that somebody else has packed; nothing is packed by them here.
_ONLY_PACKED = ("gguf", "bfl", "auto-round")


def check_quantization(quantization: Quantization, *, device: str | None) -> None:
    """Raise ModelError when its package is not there, or a device that is known does not do it."""
    backend = quantization.backend
    if isinstance(quantization, OtherQuantization):
        _check_arguments(quantization)
        if backend in ON_GPUS and device == "cpu":
            raise ModelError(f"quantization by {backend} needs a GPU", "use torchao, quanto or sdnq")
        return
    needed = _CAPABILITIES.get(quantization.type)
    is_gpu = device is not None and device.startswith("cuda")
    if needed and device is not None and not (is_gpu and torch.cuda.get_device_capability(device) >= needed):
        name = torch.cuda.get_device_name(device) if is_gpu else device
        raise ModelError(
            f"quantization {quantization.type} does not run on {name}, but on GPUs of compute "
            f"capability {needed[0]}.{needed[1]} and later ones",
            "use float8_weight_only, or leave it out; in place of `speed: fastest` use `speed: compiled`",
        )
    check_package(backend, f"quantization by {backend}")
    if isinstance(quantization, TorchAo):
        say_import_warnings()


def _check_arguments(quantization: OtherQuantization) -> None:
    """Raise ModelError for a backend that diffusers does not have, or arguments that it does not take."""
    backend = quantization.backend
    if backend in _ONLY_PACKED:
        fix = "give a model whose folder was packed by it"
        if backend == "gguf":
            fix = "give the file: `model.parts: {transformer: FILE.gguf}`"
        raise ModelError(f"quantization: {backend} is a format of files, and packs no weights here", fix)
    classes = config_classes()
    if backend not in classes:
        fix = did_you_mean(backend, classes.keys() - {*_ONLY_PACKED})
        raise ModelError(f"quantization.backend is {backend!r}, which diffusers does not have", fix)
    check_package(backend, f"quantization by {backend}")
    name = classes[backend].__name__
    try:
        config = classes[backend](**quantization.arguments)
    except (TypeError, ValueError, AttributeError, ImportError) as error:
        problem = f"quantization: {name} of diffusers does not take these values: {error}"
        raise ModelError(problem, "see its page in the documentation of diffusers") from None
    # Of the object: a class of diffusers may make that of another package. Most pass over unknown arguments.
    taken = [*inspect.signature(type(config).__init__).parameters][1:]
    if unknown := [argument for argument in quantization.arguments if argument not in taken]:
        problem = f"quantization: {name} of diffusers takes no {unknown[0]!r}"
        raise ModelError(problem, did_you_mean(unknown[0], taken))


def check_quantized(components: Mapping[str, Any], quantization: Quantization) -> None:
    """Raise ModelError for a component that came out as it went in: the libraries skip layers in silence."""
    for name, module in components.items():
        if not any(map(_is_quantized, module.modules())):
            problem = f"quantization: {quantization.backend} found nothing in {name} that it could quantize"
            raise ModelError(problem, "leave it out of quantization.components, or use another type")


def component_config(quantization: Quantization, library: str) -> New:
    """Return the config of one component. library: where its class is from; each library has its own."""
    # Our own classes, and parts of diffusers, are loaded as diffusers' own are.
    library = library if library == "transformers" else "diffusers"
    if isinstance(quantization, OtherQuantization):
        name = config_classes(library)[quantization.backend].__name__
        module = library if hasattr(import_module(library), name) else quantization.backend
        return New(module=module, name=name, arguments=quantization.arguments)
    if isinstance(quantization, TorchAo):
        module, name = TORCHAO[quantization.type]
        kind = New(module=module, name=name)
        return New(module=library, name="TorchAoConfig", arguments={"quant_type": kind})
    key = "weights_dtype" if library == "diffusers" else "weights"
    return New(module=library, name="QuantoConfig", arguments={key: quantization.type})


def _is_quantized(module: nn.Module) -> bool:
    # torchao and quanto keep what they packed in a subclass of Tensor, others in whole numbers.
    weight = getattr(module, "weight", None)
    return weight is not None and (
        hasattr(weight, "__tensor_flatten__")
        or weight.dtype.itemsize == 1
        or "Quant" in type(module).__name__
    )
