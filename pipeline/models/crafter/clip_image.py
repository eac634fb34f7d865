"""From an image in [-1, 1] to the pixels that open_clip's image tower takes, resized as kornia does."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(image: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, 3, size, size), normalised; the aspect ratio is not kept."""
    resized = functional.interpolate(
        _blurred(image, size), size=(size, size), mode="bicubic", align_corners=True
    )
    mean, std = (
        torch.tensor(v, dtype=image.dtype, device=image.device)[:, None, None] for v in (_MEAN, _STD)
    )
    return ((resized + 1) / 2 - mean) / std


def _blurred(image: Tensor, size: int) -> Tensor:
    """Blur what would alias, both sides by how much each shrinks (kornia's `resize(antialias=True)`)."""
    shrinks = [length / size for length in image.shape[-2:]]
    if max(shrinks) <= 1:
        return image
    rows, columns = (_kernel(max((shrink - 1) / 2, 0.001), like=image) for shrink in shrinks)
    margins = (len(columns) // 2,) * 2 + (len(rows) // 2,) * 2
    padded = functional.pad(image, margins, mode="reflect")
    channels = image.shape[1]
    weight = (rows[:, None] * columns[None, :]).expand(channels, 1, -1, -1)
    return functional.conv2d(padded, weight, groups=channels)


def _kernel(sigma: float, *, like: Tensor) -> Tensor:
    length = int(max(4 * sigma, 3)) | 1  # odd
    at = torch.arange(length, dtype=like.dtype, device=like.device) - length // 2
    bell = torch.exp(-(at**2) / (2 * sigma**2))
    return bell / bell.sum()
