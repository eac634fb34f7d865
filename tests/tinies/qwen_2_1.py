"""Tiny Qwen-Image 2.1: text and given pictures are kept in a cache after the first step; alpha."""

from __future__ import annotations

import diffusers

from tests.tinies.encoders import TEXT_WIDTH, qwen3_vl, sight_processor
from tests.tinies.table import TWO_LAYERS

CHANNELS = 8  # of the latents: four would be taken for those of a picture


def qwen_2_1() -> diffusers.DiffusionPipeline:
    transformer = diffusers.QwenImage21Transformer2DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        **TWO_LAYERS,
        context_in_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 6, 6),
    )
    vae = diffusers.AutoencoderKLQwenImage21(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=CHANNELS,
        dim_mult=[1] * 5,  # 16 pixels to a latent, as the pipeline has it
        num_res_blocks=1,
        latents_mean=[0.0] * CHANNELS,
        latents_std=[0.7] * CHANNELS,
    )
    return diffusers.QwenImage21Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=qwen3_vl(num_layers=2),
        processor=sight_processor(),
        transformer=transformer,
    )
