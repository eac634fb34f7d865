"""Generators of `device="cuda"`: they draw what one of the CPU draws, and say where they are."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Self

import torch

_Generator = torch.Generator
_ON_GPU: set[int] = set()  # torch's dispatcher hands on what is inside, in another object


class _AnyGenerator(type(_Generator)):  # type: ignore[misc]
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _Generator)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, _Generator) if cls is Generator else super().__subclasscheck__(other)


class Generator(_Generator, metaclass=_AnyGenerator):
    """Takes torch.Generator's place. index_of: which device is meant by one that is named."""

    index_of: Callable[[Any], int]
    _device: torch.device

    def __new__(cls, device: Any = "cpu") -> Self:
        made = super().__new__(cls, device="cpu")
        asked = torch.device(device)
        is_cuda = asked.type == "cuda"
        made._device = torch.device("cuda", cls.index_of(asked)) if is_cuda else asked
        if is_cuda:
            _ON_GPU.add(made._cdata)  # type: ignore[attr-defined]
            weakref.finalize(made, _ON_GPU.discard, made._cdata)  # type: ignore[attr-defined]
        return made

    @property
    def device(self) -> torch.device:
        return self._device

    def clone_state(self) -> Generator:
        made = Generator(self._device)
        made.set_state(self.get_state())
        return made


def is_on_gpu(generator: torch.Generator) -> bool:
    return generator._cdata in _ON_GPU  # type: ignore[attr-defined]
