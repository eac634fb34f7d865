"""All that seconds and pins depend on, besides the shape of a call, as one digest."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import torch

from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.environment import lines_beginning
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.render.fused.batching import Batching

# What chooses kernels from outside. Which of several equal GPUs a process has is not among it.
_PREFIXES = ("ATEN_", "CUBLAS", "CUDNN_", "DNNL_", "KMP_", "MKL_", "NVIDIA_TF32", "OMP_", "ONEDNN_")
_PREFIXES_OF_TORCH = ("PYTORCH_", "TORCH_", "TORCHINDUCTOR_")
# Where compiled code lies, and not what it is. Torch sets it itself, in one process sooner than in another.
_PLACE = "TORCHINDUCTOR_CACHE_DIR"


def surroundings(model: Model, batching: Batching) -> str:
    """Return the digest of model, LoRAs, options, libraries, device, driver, threads, settings of torch.

    Whatever may matter is in it: what does not match is only found once more.
    """
    said = {
        "model": model.digest,
        "loras": {name: [lora.sha256, lora.component] for name, lora in model.settings.loras.items()},
        "numerics": model.settings.numerics(batching.mode),
        "min_gain": batching.min_gain,
        "attention": model.attention.name if model.attention else None,
        "environment": dict(model.environment),
        "torch": _settings_of_torch(),
        "processor": lines_beginning("/proc/cpuinfo", ("flags", "Features")),
        "driver": lines_beginning("/proc/driver/nvidia/version", ("NVRM",)),
        "variables": _variables(),
    }
    return hashlib.sha256(canonical_json(said).encode()).hexdigest()[:32]


def _settings_of_torch() -> list[Any]:
    matmul, cudnn, mkldnn = torch.backends.cuda.matmul, torch.backends.cudnn, torch.backends.mkldnn
    convolutions: Any = cudnn.conv  # type: ignore[attr-defined]
    products: Any = mkldnn.matmul  # type: ignore[attr-defined]
    return [
        torch.__config__.show(),
        torch.__config__.parallel_info(),
        torch.are_deterministic_algorithms_enabled(),
        # `allow_tf32` and `get_float32_matmul_precision` raise where these were set.
        [matmul.fp32_precision, convolutions.fp32_precision, products.fp32_precision],
        [cudnn.benchmark, cudnn.deterministic],
        [matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction],
        [mkldnn.enabled, mkldnn.deterministic],
        str(torch.backends.cuda.preferred_blas_library()),
    ]


def _variables() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith((*_PREFIXES, *_PREFIXES_OF_TORCH)) and name != _PLACE
    }
