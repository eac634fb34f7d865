"""Calls of a network on another GPU than its pipeline: tensors go there, and what it returns comes back.

Nothing else moves. Kernels are those of one GPU, and so are bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.memory import on_device

# What pipelines call of networks besides their forward.
_METHODS = ("encode", "decode", "generate", "get_text_features", "get_image_features")


class Seam:
    """Around the calls of one network, whose weights are on `device` by then."""

    def __init__(self, network: nn.Module, *, device: torch.device, home: torch.device) -> None:
        self._device, self._home = device, home
        self._is_inside = False
        # MiniMax-H3 calls its text encoder without the head.
        for part in (network, *(part for part in network.children() if [*part.children()])):
            part.forward = self._around(part.forward)
        for method in _METHODS:
            if callable(original := getattr(network, method, None)):
                object.__setattr__(network, method, self._around(original))

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def there(*args: Any, **kwargs: Any) -> Any:
            if self._is_inside:
                return call(*args, **kwargs)
            self._is_inside = True
            try:
                args, kwargs = _moved((args, kwargs), self._home, self._device)
                with on_device(str(self._device)):
                    output = call(*args, **kwargs)
                return _moved(output, self._device, self._home, holders=[])
            finally:
                self._is_inside = False

        return there


def _moved(value: Any, origin: torch.device, place: torch.device, *, holders: list[Any] | None = None) -> Any:
    """Return a value with its tensors of one GPU on another. What is on neither stays, as on one GPU.

    holders: a list to have objects that only hold tensors, such as distributions, copied too.
    """
    leaves, structure = flatten(value, holders=holders)
    there = {
        id(leaf): leaf.to(place) for leaf in leaves if isinstance(leaf, Tensor) and leaf.device == origin
    }
    return unflatten(structure, [there.get(id(leaf), leaf) for leaf in leaves]) if there else value
