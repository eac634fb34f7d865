"""Run a network over overlapping tiles of a clip, and blend them where they overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One dimension of (B, C, T, H, W) to cut: tiles of `size`, a new one every `stride`.

    num, den: what comes out is num / den as long as what goes in.
    """

    dim: int
    size: int
    stride: int
    num: int = 1
    den: int = 1


def tiled(network: Callable[[Tensor], Tensor], sample: Tensor, axes: Sequence[Axis]) -> Tensor:
    """Return `network(sample)`, put together from tiles; the first axis is cut first."""
    if not axes:
        return network(sample)
    axis, inner = axes[0], axes[1:]
    length = sample.shape[axis.dim]
    starts = [0]
    while starts[-1] + axis.size < length:
        starts.append(starts[-1] + axis.stride)
    parts: list[Tensor] = []
    overlap = (axis.size - axis.stride) * axis.num // axis.den
    stride = axis.stride * axis.num // axis.den
    for start in starts:
        tile = sample.narrow(axis.dim, start, min(axis.size, length - start))
        part = tiled(network, tile, inner)
        if parts:
            before = parts[-1].narrow(axis.dim, stride, overlap)
            parts[-1] = parts[-1].narrow(axis.dim, 0, stride)
            part = _blended(before, part, axis.dim)
        parts.append(part)
    return torch.cat(parts, dim=axis.dim)


def _blended(before: Tensor, part: Tensor, dim: int) -> Tensor:
    """Return `part` with its first frames (rows, columns) faded in over those of the tile before."""
    overlap = before.shape[dim]
    shape = [1] * part.dim()
    shape[dim] = overlap
    weight = (torch.arange(overlap, device=part.device, dtype=part.dtype) / overlap).reshape(shape)
    mixed = before * (1 - weight) + part.narrow(dim, 0, overlap) * weight
    return torch.cat([mixed, part.narrow(dim, overlap, part.shape[dim] - overlap)], dim=dim)
