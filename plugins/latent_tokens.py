"""Convert latents to a denoiser's tokens, which are patches of one frame, and back."""

from __future__ import annotations

import torch
from torch import Tensor


def pack_latents(latents: Tensor, patch_size: int) -> Tensor:
    """Return (B, C, T, H, W) as tokens: (B, T * H/p * W/p, C * p * p)."""
    batch, channels, frames, height, width = latents.shape
    p = patch_size
    patches = latents.reshape(batch, channels, frames, height // p, p, width // p, p)
    return patches.permute(0, 2, 3, 5, 1, 4, 6).reshape(batch, -1, channels * p * p)


def unpack_latents(tokens: Tensor, patch_size: int, shape: torch.Size) -> Tensor:
    """Return tokens as latents of `shape` (B, C, T, H, W)."""
    batch, channels, frames, height, width = shape
    p = patch_size
    patches = tokens.reshape(batch, frames, height // p, width // p, channels, p, p)
    return patches.permute(0, 4, 1, 2, 5, 3, 6).reshape(shape)


def positions(shape: torch.Size, patch_size: int, device: torch.device) -> Tensor:
    """Return (frame, row, column) of every token, counted from 0: (T * H/p * W/p, 3)."""
    sides = (shape[2], shape[3] // patch_size, shape[4] // patch_size)
    axes = torch.meshgrid(*(torch.arange(side, device=device) for side in sides), indexing="ij")
    return torch.stack(axes, dim=-1).reshape(-1, 3).float()
