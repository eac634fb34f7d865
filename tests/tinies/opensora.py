"""Tiny Open-Sora pipelines: with HunyuanVideo's autoencoder, and with the video DC-AE."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import ByT5Tokenizer

from framefleet.plugins.ports.opensora.autoencoder_dc_video import AutoencoderDCVideo
from framefleet.plugins.ports.opensora.pipeline_opensora import OpenSoraPipeline
from tests.tinies.encoders import TEXT_WIDTH, clip, clip_tokenizer, hunyuan_autoencoder, t5
from tests.tinies.table import ONE_OF_EACH


def opensora() -> diffusers.DiffusionPipeline:
    transformer = _transformer(patch_size=2, channels=4)
    return OpenSoraPipeline(vae=hunyuan_autoencoder(), transformer=transformer, **_others())


def opensora_dc() -> diffusers.DiffusionPipeline:
    vae = AutoencoderDCVideo(
        latent_channels=8,
        encoder_block_out_channels=(8, 8, 8, 32, 32, 32),
        decoder_block_out_channels=(8, 8, 8, 32, 32, 32),
        encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6,
    )
    return OpenSoraPipeline(vae=vae, transformer=_transformer(patch_size=1, channels=8), **_others())


def _transformer(*, patch_size: int, channels: int) -> diffusers.FluxTransformer2DModel:
    return diffusers.FluxTransformer2DModel(
        patch_size=patch_size,
        in_channels=(2 * channels + 1) * patch_size**2,  # latents, mask, given frames
        out_channels=channels,
        **ONE_OF_EACH,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 6, 6),
    )


def _others() -> dict[str, Any]:
    return {
        "tokenizer": clip_tokenizer(),
        "text_encoder": clip(),
        "tokenizer_2": ByT5Tokenizer(),
        "text_encoder_2": t5(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(),
    }
