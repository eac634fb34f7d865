"""Tensors of `device="cuda"` with their values in a tensor on the CPU; what CUDA refuses is refused.

Refused: operands of two devices, generators of another one, and `numpy()`. An index out of range is a device
assert, after which every operation fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import torch

from tests.standin.generator import is_on_gpu
from tests.standin.gpu import ASSERT, GPUs

aten = torch.ops.aten
gpus = GPUs(1)  # of this process
PINNED: set[int] = set()  # storages of pinned memory

# Run whole: on CUDA torch would choose among kernels that are not there.
_WHOLE = {torch.nn.functional.scaled_dot_product_attention}
# CUDA takes an index on the host for them.
_MIXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
# A kernel looks their indices up, and fails on the device where one is out of range.
_LOOKS_UP = {aten.embedding.default, aten.gather.default, aten.index.Tensor, aten.index_select.default}
_READS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero"}  # values that the host waits for
_SAME = "Expected all tensors to be on the same device, but found at least two devices"


class CUDATensor(torch.Tensor):
    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, index: int) -> Self:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device("cuda", index),
        )

    def __init__(self, inner: torch.Tensor, index: int) -> None:
        self.inner = inner
        with gpus.lock:
            gpus.devices[index].count(inner)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{self.inner!r} on {self.device}"

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.requires_grad_:  # gradients need a guard of the device, in C++
            return args[0]
        with torch._C.DisableTorchFunctionSubclass():
            return run(func, args, kwargs or {}) if func in _WHOLE else func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: Any) -> Any:
    """Run one operation of torch on a device, as its dispatcher calls it."""
    name = func.__name__.partition(".")[0]
    tensors = [leaf for leaf in _leaves((*args, *kwargs.values())) if isinstance(leaf, torch.Tensor)]
    there = {tensor.device.index for tensor in tensors if isinstance(tensor, CUDATensor)}
    asked = kwargs.get("device")
    to_host = asked is not None and asked.type == "cpu"
    index = gpus.index(asked) if asked is not None and not to_host else min(there, default=gpus.current)
    gpus.launch(name, index)
    if func is aten.copy_.default:
        return _copy(*args, **kwargs)
    _refuse_mixed(func, tensors, there, name)
    if to_host and func is aten._to_copy.default:
        return _to_host(args[0], kwargs)
    if name in _READS:
        gpus.wait(index, name, gpus.stream)
    known = {id(tensor.inner): tensor for tensor in tensors if isinstance(tensor, CUDATensor)}
    own = {key: _mapped(_inside, value) for key, value in kwargs.items() if key != "pin_memory"}
    _draw_there(func, own, index)

    def outside(made: Any) -> Any:
        if not isinstance(made, torch.Tensor):
            return made
        found = known[id(made)] if id(made) in known else CUDATensor(made, index)
        assert found.shape == made.shape, f"the stand-in cannot have {name} reshape a tensor"
        return found

    try:
        return _mapped(outside, func(*_mapped(_inside, args), **own))
    except (IndexError, RuntimeError) as error:
        is_memory = isinstance(error, torch.OutOfMemoryError)
        if is_memory or func not in _LOOKS_UP or "out of" not in str(error):
            raise
        gpus.sticky = ASSERT
        raise torch.AcceleratorError(ASSERT) from None


def _leaves(values: Any) -> Iterator[Any]:
    for value in values:
        yield from _leaves(value) if isinstance(value, list | tuple) else (value,)


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)([_mapped(change, child) for child in value])
    return change(value)


def _refuse_mixed(func: Any, tensors: list[torch.Tensor], there: set[int], name: str) -> None:
    if len(there) > 1:
        raise RuntimeError(f"{_SAME}, {' and '.join(f'cuda:{i}' for i in sorted(there))}! ({name})")
    if (
        there
        and func not in _MIXED
        and any(tensor.dim() and not isinstance(tensor, CUDATensor) for tensor in tensors)
    ):
        raise RuntimeError(f"{_SAME}, cuda:{min(there)} and cpu! ({name})")


def _inside(leaf: Any) -> Any:
    if isinstance(leaf, CUDATensor):
        return leaf.inner
    return torch.device("cpu") if isinstance(leaf, torch.device) else leaf


def _draw_there(func: Any, kwargs: dict[str, Any], index: int) -> None:
    """Have an operation that draws draw from the device's own generator, unless it is given one."""
    given = kwargs.get("generator")
    if given is not None and not is_on_gpu(given):
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    schema = getattr(func, "_schema", None)
    if given is None and any(argument.name == "generator" for argument in getattr(schema, "arguments", ())):
        kwargs["generator"] = torch.cuda.default_generators[index]


def _copy(destination: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    if isinstance(destination, CUDATensor):
        destination.inner.copy_(source.inner if isinstance(source, CUDATensor) else source)
    elif isinstance(source, CUDATensor):
        index = source.device.index
        if non_blocking and destination.untyped_storage()._cdata in PINNED:
            gpus.later(destination, source.inner.clone(), index)
        else:
            gpus.wait(index, "copy", gpus.stream)
            destination.copy_(source.inner)
    return destination


def _to_host(source: CUDATensor, kwargs: dict[str, Any]) -> torch.Tensor:
    dtype, form = kwargs.get("dtype") or source.dtype, kwargs.get("memory_format") or torch.preserve_format
    value = source.inner.to(dtype, copy=True, memory_format=form)
    index = source.device.index
    if not kwargs.get("non_blocking"):
        gpus.wait(index, "copy", gpus.stream)
        return value
    made = torch.empty_like(value)
    gpus.later(made, value, index)
    return made
