"""Encoder and decoder of the video DC-AE: stacks of its blocks, level by level."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from framefleet.pipeline.models.opensora.dc_blocks import (
    ChannelRMSNorm,
    DownBlock,
    EfficientViTBlock,
    ResBlock,
    UpBlock,
)


def _block(kind: str, channels: int, head_dim: int) -> nn.Module:
    if kind == "EfficientViTBlock":
        return EfficientViTBlock(channels, head_dim)
    if kind == "ResBlock":
        return ResBlock(channels)
    raise ValueError(f"block types are ResBlock and EfficientViTBlock, not {kind!r}")


class Encoder(nn.Module):
    """From (B, 3, T, H, W) to latents. temporal: after which levels the frames are halved too."""

    def __init__(
        self,
        in_channels: int,
        latent_channels: int,
        head_dim: int,
        block_types: Sequence[str],
        widths: Sequence[int],
        depths: Sequence[int],
        temporal: Sequence[bool],
    ) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.conv_in = nn.Conv3d(in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            blocks = [_block(block_types[i], width, head_dim) for _ in range(depths[i])]
            if i + 1 < len(widths):
                blocks.append(DownBlock(width, widths[i + 1], temporal=temporal[i]))
            self.down_blocks.append(nn.Sequential(*blocks))
        self.conv_out = nn.Conv3d(widths[-1], latent_channels, 3, padding=1)

    def forward(self, sample: Tensor) -> Tensor:
        hidden_states = self.conv_in(sample)
        for blocks in self.down_blocks:
            hidden_states = blocks(hidden_states)
        shortcut = hidden_states.unflatten(1, (self.latent_channels, -1)).mean(dim=2)
        latent: Tensor = self.conv_out(hidden_states) + shortcut
        return latent


class Decoder(nn.Module):
    """From latents to (B, 3, T, H, W); its levels count from the pixels, as the encoder's do."""

    def __init__(
        self,
        out_channels: int,
        latent_channels: int,
        head_dim: int,
        block_types: Sequence[str],
        widths: Sequence[int],
        depths: Sequence[int],
        temporal: Sequence[bool],
    ) -> None:
        super().__init__()
        self.repeats = widths[-1] // latent_channels
        self.conv_in = nn.Conv3d(latent_channels, widths[-1], 3, padding=1)
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            blocks = [_block(block_types[i], width, head_dim) for _ in range(depths[i])]
            if i + 1 < len(widths):
                blocks.insert(0, UpBlock(widths[i + 1], width, temporal=temporal[i]))
            self.up_blocks.append(nn.Sequential(*blocks))
        self.norm_out = ChannelRMSNorm(widths[0])
        self.conv_out = nn.Conv3d(widths[0], out_channels, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        hidden_states = self.conv_in(latent) + latent.repeat_interleave(self.repeats, dim=1)
        for blocks in reversed(self.up_blocks):
            hidden_states = blocks(hidden_states)
        sample: Tensor = self.conv_out(F.relu(self.norm_out(hidden_states)))
        return sample
