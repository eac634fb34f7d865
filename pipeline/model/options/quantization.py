"""From the job's `quantization` to what `from_pretrained` is given, and whether it then happened."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch
from torch import nn

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.options.pipe_calls import New
from framefleet.pipeline.model.options.schema import Quantization, TorchAo
from framefleet.pipeline.model.options.torchao_import import say_import_warnings

# torchao's own names; its names say what is meant, ours fit a job file.
TORCHAO = {
    "int8_weight_only": "Int8WeightOnlyConfig",
    "int8_dynamic": "Int8DynamicActivationInt8WeightConfig",
    "float8_weight_only": "Float8WeightOnlyConfig",
    "float8_dynamic": "Float8DynamicActivationFloat8WeightConfig",
}
DISTRIBUTIONS = {"torchao": "torchao", "quanto": "optimum-quanto"}


def check_quantization(quantization: Quantization, *, device: str | None) -> None:
    """Raise ModelError when its package is not there, or a device that is known does not do it."""
    backend = quantization.backend
    if quantization.type == "float8_dynamic" and device is not None and not _has_fp8(device):
        raise ModelError(
            f"quantization float8_dynamic does not run on {_named(device)}, but on Ada GPUs and later ones",
            "use float8_weight_only, or leave it out; in place of `speed: fastest` use `speed: exact`",
        )
    try:
        metadata.version(DISTRIBUTIONS[backend])
    except metadata.PackageNotFoundError:
        raise ModelError(
            f"quantization by {backend} needs a package that is not installed",
            "pip install 'framefleet[quantization]'",
        ) from None
    if isinstance(quantization, TorchAo):
        say_import_warnings()


def pipeline_config(quantization: Quantization, libraries: Mapping[str, str]) -> New:
    """Return the argument `quantization_config` of a pipeline's from_pretrained.

    libraries: of each component to quantise; the two have configs of their own for one and the same.
    """
    mapping = {name: _component_config(quantization, library) for name, library in libraries.items()}
    return New(module="diffusers", name="PipelineQuantizationConfig", arguments={"quant_mapping": mapping})


def check_quantized(components: Mapping[str, Any], quantization: Quantization) -> None:
    """Raise ModelError for a component that came out as it went in: the libraries skip layers in silence."""
    for name, module in components.items():
        if not any(_is_quantized(part) for part in module.modules()):
            raise ModelError(
                f"quantization: {quantization.backend} found nothing in {name} that it could quantise",
                "leave it out of quantization.components, or use another type",
            )


def _component_config(quantization: Quantization, library: str) -> New:
    # Our own classes, and parts of diffusers, are loaded as diffusers' own are.
    library = library if library == "transformers" else "diffusers"
    if isinstance(quantization, TorchAo):
        kind = New(module="torchao.quantization", name=TORCHAO[quantization.type])
        return New(module=library, name="TorchAoConfig", arguments={"quant_type": kind})
    key = "weights_dtype" if library == "diffusers" else "weights"
    return New(module=library, name="QuantoConfig", arguments={key: quantization.type})


def _named(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _has_fp8(device: str) -> bool:
    return device.startswith("cuda") and torch.cuda.get_device_capability(device) >= (8, 9)  # Ada


def _is_quantized(module: nn.Module) -> bool:
    # Both keep what they packed in a subclass of Tensor; quanto has layers of its own around it.
    weight = getattr(module, "weight", None)
    return weight is not None and hasattr(weight, "__tensor_flatten__")
