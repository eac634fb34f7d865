"""From the dtype that a job asks for to the dtype of every component. Imports no torch.

A name is of all components; a mapping is diffusers' own form, `{default: bf16, vae: fp32}`; what is left open
(auto, or a mapping without a default) is the model's own on a GPU, and fp32 on a CPU.
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
    """Return what torch calls one of `NAMES`."""
    import torch

    dtype: torch.dtype = getattr(torch, _TORCH[name])
    return dtype


def without_torch(value: Any) -> Any:
    """Return the name of a dtype or device of torch, also in a mapping; other values as they are."""
    if isinstance(value, Mapping):
        return {key: without_torch(one) for key, one in value.items()}
    kind = type(value)
    is_torchs = kind.__module__ == "torch" and kind.__name__ in ("dtype", "device")
    return _NAMES.get(str(value), str(value)) if is_torchs else value


def check_dtype(dtype: DType, components: Collection[str]) -> None:
    """Raise ModelError for what is no dtype, and for components that the model does not have.

    diffusers takes both in silence, and loads in another dtype than was meant.
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
    """Return the one spelling of all that ask for the same: part of every row's identity."""
    if isinstance(dtype, str):
        return dtype
    default = dtype.get("default")
    pinned = {name: value for name, value in sorted(dtype.items()) if name != "default" and value != default}
    if default is None:
        return pinned or "auto"
    return {"default": default, **pinned} if pinned else default


def resolved(dtype: DType, *, device: str, auto: Mapping[str, DTypeName]) -> ResolvedDType:
    """Return what `dtype` comes to on this device: a name, or a mapping with a default.

    auto: of the model on a GPU, by component, with a default; see `PipelineSpec.auto_dtypes`.
    """
    if not device.startswith("cuda"):
        auto = {"default": "fp32"}
    if isinstance(dtype, str):
        chosen = auto if dtype == "auto" else {"default": dtype}
    else:
        chosen = dtype if "default" in dtype else {**auto, **dtype}
    pinned = {name: value for name, value in chosen.items() if value != chosen["default"]}
    return {"default": chosen["default"], **pinned} if pinned else chosen["default"]
