"""The video DC-AE: clips (B, 3, T, H, W) in [-1, 1] to latents (B, C, T / 4, H / 32, W / 32), and back.

AutoencoderDC of diffusers (arXiv 2410.10733) with frames: the last halvings of height and width take the
frames along. A single image stays one frame.
"""

from __future__ import annotations

from functools import partial

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput, EncoderOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from framefleet.pipeline.models.opensora.dc_coders import Decoder, Encoder
from framefleet.pipeline.models.opensora.tiling import Axis, tiled

_WIDTHS = (128, 256, 512, 512, 1024, 1024)
BLOCKS = ("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock", "EfficientViTBlock", "EfficientViTBlock")


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
        self.encoder = Encoder(
            in_channels,
            latent_channels,
            attention_head_dim,
            encoder_block_types,
            encoder_block_out_channels,
            encoder_layers_per_block,
            temporal,
        )
        self.decoder = Decoder(
            in_channels,
            latent_channels,
            attention_head_dim,
            decoder_block_types,
            decoder_block_out_channels,
            decoder_layers_per_block,
            temporal,
        )
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
