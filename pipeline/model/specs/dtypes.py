"""From the `dtype` of a job to the dtype of every component. Does not import torch.

A name is for all components. A mapping is diffusers' own form, `{default: bf16, vae: fp32}`. With auto, or a
mapping without a default, other components use the model's own dtypes on a GPU, and fp32 on a CPU.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from framefleet.pipeline.errors import ModelError

if TYPE_CHECKING:
    import torch

DTypeName = Literal["fp32", "fp16", "bf16"]
DType = Literal["auto", DTypeName] | dict[str, DTypeName]
ResolvedDType = DTypeName | dict[str, DTypeName]
NAMES = get_args(DTypeName)
WITHOUT_PRESET: Mapping[str, DTypeName] = {"default": "bf16"}
_TORCH = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_NAMES = {f"torch.{theirs}": name for name, theirs in _TORCH.items()}


def torch_dtype(name: str) -> torch.dtype:
    """Return the torch dtype for one of `NAMES`."""
    import torch

    return getattr(torch, _TORCH[name])


def without_torch(value: Any) -> Any:
    """Return the name of a torch dtype or device, also in a mapping; other values unchanged."""
    if isinstance(value, Mapping):
        return {key: without_torch(inner) for key, inner in value.items()}
    kind = type(value)
    is_torchs = kind.__module__ == "torch" and kind.__name__ in ("dtype", "device")
    return _NAMES.get(str(value), str(value)) if is_torchs else value


def check_dtype(dtype: DType, components: Collection[str]) -> None:
    """Raise ModelError for an unknown dtype, or a component that the model does not have.

    diffusers would accept both silently, and load in another dtype.
    """
    if not isinstance(dtype, Mapping) and dtype not in ("auto", *NAMES):
        raise ModelError(f"dtype is {dtype!r}", f"use one of auto, {', '.join(NAMES)}, or a mapping")
    for component, name in dtype.items() if isinstance(dtype, Mapping) else ():
        if component != "default" and component not in components:
            problem = f"dtype names {component!r}, but the model has no such component"
            raise ModelError(problem, f"use one of default, {', '.join(components)}")
        if name not in NAMES:
            raise ModelError(f"dtype of {component} is {name!r}", f"use one of {', '.join(NAMES)}")


def canonical_dtype(dtype: DType) -> DType:
    """Return one spelling for equal settings: it is part of every row's identity."""
    if isinstance(dtype, str):
        return dtype
    default = dtype.get("default")
    pinned = {name: value for name, value in sorted(dtype.items()) if name != "default" and value != default}
    if default is None:
        return pinned or "auto"
    return {"default": default, **pinned} if pinned else default


def resolved(dtype: DType, *, device: str, auto: Mapping[str, DTypeName]) -> ResolvedDType:
    """Return the dtype on this device: a name, or a mapping with a default.

    auto: the model's own dtypes on a GPU, by component, with a default; see `PipelineSpec.auto_dtypes`.
    """
    if not device.startswith("cuda"):
        auto = {"default": "fp32"}
    if isinstance(dtype, str):
        chosen = auto if dtype == "auto" else {"default": dtype}
    else:
        chosen = dtype if "default" in dtype else {**auto, **dtype}
    pinned = {name: value for name, value in chosen.items() if value != chosen["default"]}
    return {"default": chosen["default"], **pinned} if pinned else chosen["default"]
