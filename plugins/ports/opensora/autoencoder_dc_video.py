"""The video DC-AE: clips (B, 3, T, H, W) in [-1, 1] to latents (B, C, T / 4, H / 32, W / 32), and back.

AutoencoderDC of diffusers (arXiv 2410.10733) with frames: the last halvings of height and width take the
frames along. A single image stays one frame.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput, EncoderOutput
from diffusers.models.normalization import RMSNorm
from diffusers.utils.accelerate_utils import apply_forward_hook
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


class LinearAttention(nn.Module):
    """ReLU attention over all places of all frames, linear in them: keys and values are summed first."""

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.to_qkv = nn.Conv3d(channels, 3 * channels, 1, bias=False)
        of_each, wide = channels // head_dim, 3 * channels  # of a neighbourhood of 5 x 5 x 5
        proj_in = nn.Conv3d(wide, wide, 5, padding=2, groups=wide, bias=False)
        proj_out = nn.Conv3d(wide, wide, 1, groups=3 * of_each, bias=False)
        self.to_qkv_multiscale = nn.ModuleList(
            [nn.Sequential(OrderedDict(proj_in=proj_in, proj_out=proj_out))]
        )
        self.to_out = nn.Conv3d(2 * channels, channels, 1, bias=False)
        self.norm_out = ChannelRMSNorm(channels)

    def forward(self, hidden_states: Tensor) -> Tensor:
        qkv = self.to_qkv(hidden_states)
        qkv = torch.cat([qkv, *(scale(qkv) for scale in self.to_qkv_multiscale)], dim=1)
        places = hidden_states.shape[2:]
        # (B, heads, 3 * head_dim, T * H * W)
        heads = qkv.float().flatten(2).unflatten(1, (-1, 3 * self.head_dim))
        query, key, value = heads.chunk(3, dim=2)
        value = F.pad(value, (0, 0, 0, 1), value=1.0)  # a row of ones sums the weights
        weighted = (value @ F.relu(key).transpose(-1, -2)) @ F.relu(query)
        attended = (weighted[:, :, :-1] / (weighted[:, :, -1:] + 1e-15)).to(hidden_states.dtype)
        merged = attended.flatten(1, 2).unflatten(2, places)
        normed: Tensor = self.norm_out(self.to_out(merged))
        return normed + hidden_states


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
        return self.conv(hidden_states) + shortcut


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


_Level = tuple[str, int, int, bool]  # block type, width, depth, and whether its halving takes frames along
_WIDTHS = (128, 256, 512, 512, 1024, 1024)
BLOCKS = ("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock", "EfficientViTBlock", "EfficientViTBlock")


class Encoder(nn.Module):
    """From (B, 3, T, H, W) to latents."""

    def __init__(
        self, in_channels: int, latent_channels: int, head_dim: int, levels: Sequence[_Level]
    ) -> None:
        super().__init__()
        widths = [width for _, width, _, _ in levels]
        self.latent_channels = latent_channels
        self.conv_in = nn.Conv3d(in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for i, (block_type, width, depth, temporal) in enumerate(levels):
            blocks = [_block(block_type, width, head_dim) for _ in range(depth)]
            if i + 1 < len(widths):
                blocks.append(DownBlock(width, widths[i + 1], temporal=temporal))
            self.down_blocks.append(nn.Sequential(*blocks))
        self.conv_out = nn.Conv3d(widths[-1], latent_channels, 3, padding=1)

    def forward(self, sample: Tensor) -> Tensor:
        hidden_states = self.conv_in(sample)
        for blocks in self.down_blocks:
            hidden_states = blocks(hidden_states)
        shortcut = hidden_states.unflatten(1, (self.latent_channels, -1)).mean(dim=2)
        return self.conv_out(hidden_states) + shortcut


class Decoder(nn.Module):
    """From latents to (B, 3, T, H, W); its levels count from the pixels, as the encoder's do."""

    def __init__(
        self, out_channels: int, latent_channels: int, head_dim: int, levels: Sequence[_Level]
    ) -> None:
        super().__init__()
        widths = [width for _, width, _, _ in levels]
        self.repeats = widths[-1] // latent_channels
        self.conv_in = nn.Conv3d(latent_channels, widths[-1], 3, padding=1)
        self.up_blocks = nn.ModuleList()
        for i, (block_type, width, depth, temporal) in enumerate(levels):
            blocks = [_block(block_type, width, head_dim) for _ in range(depth)]
            if i + 1 < len(widths):
                blocks.insert(0, UpBlock(widths[i + 1], width, temporal=temporal))
            self.up_blocks.append(nn.Sequential(*blocks))
        self.norm_out = ChannelRMSNorm(widths[0])
        self.conv_out = nn.Conv3d(widths[0], out_channels, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        hidden_states = self.conv_in(latent) + latent.repeat_interleave(self.repeats, dim=1)
        for blocks in reversed(self.up_blocks):
            hidden_states = blocks(hidden_states)
        return self.conv_out(F.relu(self.norm_out(hidden_states)))


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


class AutoencoderDCVideo(ModelMixin, AutoencoderMixin, ConfigMixin):
    """Deep-compression autoencoder for video: latents are not sampled; a clip has 4k frames, or one.

    Tiles, when `enable_tiling` was called, are those of its authors: 256 pixels and 32 frames, a quarter of
    which overlaps the next tile.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        latent_channels: int = 128,
        attention_head_dim: int = 32,
        encoder_block_types: tuple[str, ...] = BLOCKS,
        decoder_block_types: tuple[str, ...] = BLOCKS,
        encoder_block_out_channels: tuple[int, ...] = _WIDTHS,
        decoder_block_out_channels: tuple[int, ...] = _WIDTHS,
        encoder_layers_per_block: tuple[int, ...] = (2, 2, 2, 3, 3, 3),
        decoder_layers_per_block: tuple[int, ...] = (3, 3, 3, 3, 3, 3),
        temporal_compression_ratio: int = 4,
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        halvings = len(encoder_block_out_channels) - 1
        num_temporal = temporal_compression_ratio.bit_length() - 1
        temporal = [halvings - num_temporal <= level < halvings for level in range(halvings + 1)]
        of_encoder = zip(
            encoder_block_types, encoder_block_out_channels, encoder_layers_per_block, temporal, strict=True
        )
        of_decoder = zip(
            decoder_block_types, decoder_block_out_channels, decoder_layers_per_block, temporal, strict=True
        )
        self.encoder = Encoder(in_channels, latent_channels, attention_head_dim, [*of_encoder])
        self.decoder = Decoder(in_channels, latent_channels, attention_head_dim, [*of_decoder])
        self.spatial_compression_ratio = 2**halvings
        self.temporal_compression_ratio = temporal_compression_ratio
        self.use_slicing = False
        self.use_tiling = False
        self.tile_sample_min_size, self.tile_sample_stride = 256, 192
        self.tile_sample_min_num_frames, self.tile_sample_stride_num_frames = 32, 24

    @apply_forward_hook
    def encode(self, x: Tensor, return_dict: bool = True) -> EncoderOutput | tuple[Tensor]:
        """Return latents of clips (B, 3, T, H, W), H and W multiples of 32."""
        encode = partial(tiled, self.encoder, axes=self._axes(is_encoding=True))
        latent = torch.cat([encode(clip) for clip in self._slices(x)])
        return EncoderOutput(latent=latent) if return_dict else (latent,)

    @apply_forward_hook
    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Return clips of latents (B, C, T', H', W')."""
        decode = partial(tiled, self.decoder, axes=self._axes(is_encoding=False))
        sample = torch.cat([decode(latent) for latent in self._slices(z)])
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(self, sample: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        return self.decode(self.encode(sample, return_dict=False)[0], return_dict=return_dict)

    def _slices(self, batch: Tensor) -> tuple[Tensor, ...]:
        return batch.split(1) if self.use_slicing else (batch,)

    def _axes(self, *, is_encoding: bool) -> list[Axis]:
        """Return how clips or latents are cut into tiles: over time, then over height and width."""
        if not self.use_tiling:
            return []
        pixels = (self.tile_sample_min_size, self.tile_sample_stride)
        frames = (self.tile_sample_min_num_frames, self.tile_sample_stride_num_frames)
        cuts = [(2, frames, self.temporal_compression_ratio)]
        cuts += [(dim, pixels, self.spatial_compression_ratio) for dim in (3, 4)]
        if is_encoding:
            return [Axis(dim=dim, size=size, stride=stride, den=ratio) for dim, (size, stride), ratio in cuts]
        return [
            Axis(dim=dim, size=size // ratio, stride=stride // ratio, num=ratio)
            for dim, (size, stride), ratio in cuts
        ]


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


def _block(kind: str, channels: int, head_dim: int) -> nn.Module:
    if kind == "EfficientViTBlock":
        parts = OrderedDict(attn=LinearAttention(channels, head_dim), conv_out=GatedConv(channels))
        return nn.Sequential(parts)
    if kind == "ResBlock":
        return ResBlock(channels)
    raise ValueError(f"block types are ResBlock and EfficientViTBlock, not {kind!r}")
