"""Counts the bytes of tensors that are alive at once on the meta device.

Not counted: workspaces of kernels, and fragments.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from framefleet.pipeline.hooks.tree import flatten, unflatten


class Meter(TorchDispatchMode):
    """Counts what operations make while it is entered. peak: the most bytes that were alive at once."""

    def __init__(self, others: Iterable[Tensor]) -> None:
        """others: weights and inputs, which are not counted; operations return views of them."""
        super().__init__()  # type: ignore[no-untyped-call]  # torch is typed in part
        self._others = {tensor.untyped_storage()._cdata for tensor in others}
        self._alive: dict[int, weakref.ref[Any]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in result if isinstance(result, list | tuple) else (result,):
            if isinstance(leaf, Tensor) and leaf.is_meta:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._others and key not in self._alive:
            self._alive[key] = weakref.ref(storage, partial(self._free, key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def _free(self, key: int, size: int, _: Any) -> None:
        del self._alive[key]
        self.now -= size


@contextmanager
def metered(others: Iterable[Tensor]) -> Iterator[Meter]:
    """Count while the block runs."""
    with torch.no_grad(), without_scores(), Meter(others) as meter:
        yield meter


@contextmanager
def without_scores() -> Iterator[None]:
    """Let attention take the memory that kernels of GPUs need: they keep no table of scores."""
    own, F.scaled_dot_product_attention = F.scaled_dot_product_attention, _attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = own


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    return query.new_zeros((*query.shape[:-1], value.shape[-1]))


def call_key(args: Any, kwargs: Any) -> tuple[Hashable, ...]:
    """Return what decides the shapes that a call computes. What differs in no text does so in none."""
    leaves, structure = flatten((args, kwargs))
    return structure, *(
        (tuple(leaf.shape), str(leaf.dtype)) if isinstance(leaf, Tensor) else f"{type(leaf)} {leaf!r:.200}"
        for leaf in leaves
    )


@dataclass(frozen=True, slots=True)
class _Shape:
    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, leaf: Any) -> Any:
        return cls(tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else leaf

    @staticmethod
    def filled(leaf: Any) -> Any:
        return torch.empty(leaf.shape, dtype=leaf.dtype, device="meta") if isinstance(leaf, _Shape) else leaf


class Repeated:
    """A part of an autoencoder, which is called for each tile and frame: equal shapes are computed once.

    What it leaves in lists that it is given (caches of causal convolutions) is left there again.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self._known: dict[Hashable, tuple[Any, list[Any], int]] = {}
        self.meter: Meter | None = None
        self.__wrapped__ = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        meter = self.meter
        if meter is None:
            return self._call(*args, **kwargs)
        lists = [value for value in (*args, *kwargs.values()) if isinstance(value, list)]
        key = call_key(args, kwargs)
        if key not in self._known:
            before, peak, meter.peak = meter.now, meter.peak, meter.now
            result = self._call(*args, **kwargs)
            self._known[key] = _shapes(result), [_shapes(one) for one in lists], meter.peak - before
            meter.peak = max(meter.peak, peak)
            return result
        shapes, left, more = self._known[key]
        meter.peak = max(meter.peak, meter.now + more)
        for one, content in zip(lists, left, strict=True):
            one[:] = _filled(content)
        return _filled(shapes)


def _shapes(value: Any) -> tuple[Any, Any]:
    leaves, structure = flatten(value)
    return structure, [_Shape.of(leaf) for leaf in leaves]


def _filled(shapes: tuple[Any, Any]) -> Any:
    structure, leaves = shapes
    return unflatten(structure, [_Shape.filled(leaf) for leaf in leaves])
