"""Whether two runs of a network return the same: to the bit, or as far as another order of sums allows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from framefleet.pipeline.hooks.tree import flatten
from framefleet.pipeline.render.fused.calls import bits


def are_equal(mine: Any, theirs: Any) -> bool:
    """Whether all tensors are equal, bit for bit, and stand in the same places."""
    return all(_is_equal(a, b) for a, b in zip(_leaves(mine), _leaves(theirs), strict=True))


def _is_equal(mine: Any, theirs: Any) -> bool:
    if not isinstance(mine, Tensor) or not isinstance(theirs, Tensor):
        return type(mine) is type(theirs)
    if (mine.dtype, mine.shape) != (theirs.dtype, theirs.shape):
        return False
    return torch.equal(bits(mine), bits(theirs))


def are_close(mine: Any, theirs: Any) -> bool:
    """Whether all tensors agree as far as another order of summing allows: 1 % of their largest value."""
    pairs = zip(_leaves(mine), _leaves(theirs), strict=True)
    return all(
        a.shape == b.shape and bool((a - b).abs().max() <= 0.01 * b.abs().max())
        for a, b in pairs
        if isinstance(a, Tensor) and isinstance(b, Tensor) and a.is_floating_point() and a.numel()
    )


def _leaves(value: Any) -> list[Any]:
    return flatten(value, holders=[])[0]
