"""Blocks of the video DC-AE: what AutoencoderDC of diffusers is made of, with frames as a third dimension.

All work on (B, C, T, H, W).
"""

from __future__ import annotations

import torch
from diffusers.models.normalization import RMSNorm
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelRMSNorm(RMSNorm):
    """RMS norm over the channels, with weight and bias."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5, elementwise_affine=True, bias=True)

    def forward(self, hidden_states: Tensor) -> Tensor:
        normed: Tensor = super().forward(hidden_states.movedim(1, -1))
        return normed.movedim(-1, 1)


class ResBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.norm = ChannelRMSNorm(channels)

    def forward(self, hidden_states: Tensor) -> Tensor:
        residual = hidden_states
        hidden_states = self.conv2(F.silu(self.conv1(hidden_states)))
        normed: Tensor = self.norm(hidden_states)
        return normed + residual


class MultiscaleProjection(nn.Module):
    """Queries, keys and values of a 5 x 5 x 5 neighbourhood."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.proj_in = nn.Conv3d(channels, channels, 5, padding=2, groups=channels, bias=False)
        self.proj_out = nn.Conv3d(channels, channels, 1, groups=3 * num_heads, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        projected: Tensor = self.proj_out(self.proj_in(hidden_states))
        return projected


class LinearAttention(nn.Module):
    """ReLU attention over all places of all frames, linear in them: keys and values are summed first."""

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.to_qkv = nn.Conv3d(channels, 3 * channels, 1, bias=False)
        self.to_qkv_multiscale = nn.ModuleList([MultiscaleProjection(3 * channels, channels // head_dim)])
        self.to_out = nn.Conv3d(2 * channels, channels, 1, bias=False)
        self.norm_out = ChannelRMSNorm(channels)

    def forward(self, hidden_states: Tensor) -> Tensor:
        qkv = self.to_qkv(hidden_states)
        qkv = torch.cat([qkv, *(scale(qkv) for scale in self.to_qkv_multiscale)], dim=1)
        places = hidden_states.shape[2:]
        # (B, heads, 3 * head_dim, T * H * W)
        heads = qkv.float().flatten(2).unflatten(1, (-1, 3 * self.head_dim))
        attended = _linear_attention(*heads.chunk(3, dim=2)).to(hidden_states.dtype)
        merged = attended.flatten(1, 2).unflatten(2, places)
        normed: Tensor = self.norm_out(self.to_out(merged))
        return normed + hidden_states


def _linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key = F.relu(query), F.relu(key)
    value = F.pad(value, (0, 0, 0, 1), value=1.0)  # a row of ones sums the weights
    weighted = (value @ key.transpose(-1, -2)) @ query
    return weighted[:, :, :-1] / (weighted[:, :, -1:] + 1e-15)


class GatedConv(nn.Module):
    """Feed-forward: widen, mix each channel over its neighbourhood, gate, narrow."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 4 * channels
        self.conv_inverted = nn.Conv3d(channels, 2 * wide, 1)
        self.conv_depth = nn.Conv3d(2 * wide, 2 * wide, 3, padding=1, groups=2 * wide)
        self.conv_point = nn.Conv3d(wide, channels, 1, bias=False)
        self.norm = ChannelRMSNorm(channels)

    def forward(self, hidden_states: Tensor) -> Tensor:
        widened = self.conv_depth(F.silu(self.conv_inverted(hidden_states)))
        value, gate = widened.chunk(2, dim=1)
        normed: Tensor = self.norm(self.conv_point(value * F.silu(gate)))
        return normed + hidden_states


class EfficientViTBlock(nn.Module):
    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        self.attn = LinearAttention(channels, head_dim)
        self.conv_out = GatedConv(channels)

    def forward(self, hidden_states: Tensor) -> Tensor:
        attended: Tensor = self.conv_out(self.attn(hidden_states))
        return attended


class DownBlock(nn.Module):
    """Halve height and width, and the frames if it is `temporal`; a single image has none to halve."""

    def __init__(self, in_channels: int, out_channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.temporal = temporal
        self.out_channels = out_channels
        self.conv = nn.Conv3d(in_channels, out_channels, 3, stride=(2 if temporal else 1, 2, 2), padding=1)

    def forward(self, hidden_states: Tensor) -> Tensor:
        frames = 2 if self.temporal and hidden_states.shape[2] > 1 else 1
        shortcut = unshuffle(hidden_states, frames).unflatten(1, (self.out_channels, -1)).mean(dim=2)
        halved: Tensor = self.conv(hidden_states) + shortcut
        return halved


class UpBlock(nn.Module):
    """Double height and width, and the frames if it is `temporal`; a single image stays one."""

    def __init__(self, in_channels: int, out_channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.temporal = temporal
        self.out_channels = out_channels
        self.conv = nn.Conv3d(in_channels, out_channels, 3, padding=1)

    def forward(self, hidden_states: Tensor) -> Tensor:
        frames = 2 if self.temporal and hidden_states.shape[2] > 1 else 1
        repeats = self.out_channels * frames * 4 // hidden_states.shape[1]
        shortcut = shuffle(hidden_states.repeat_interleave(repeats, dim=1), frames)
        larger = F.interpolate(hidden_states, scale_factor=(frames, 2, 2), mode="nearest")
        doubled: Tensor = self.conv(larger)
        return doubled + shortcut


def unshuffle(sample: Tensor, frames: int) -> Tensor:
    """Fold `frames` x 2 x 2 pixels into channels."""
    batch, channels, t, h, w = sample.shape
    cells = sample.reshape(batch, channels, t // frames, frames, h // 2, 2, w // 2, 2)
    return cells.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, -1, t // frames, h // 2, w // 2)


def shuffle(sample: Tensor, frames: int) -> Tensor:
    """Unfold channels into `frames` x 2 x 2 pixels."""
    batch, channels, t, h, w = sample.shape
    cells = sample.reshape(batch, channels // (4 * frames), frames, 2, 2, t, h, w)
    return cells.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, -1, t * frames, h * 2, w * 2)
